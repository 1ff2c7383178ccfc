-- Notes the newest event published, unless a newer one is known.
--
-- KEYS  1 newest event
-- ARGV  1 epoch  2 position among all events  3 identity
-- Returns the epoch, position and identity that were known before.

local MAX_NUMBER = 9007199254740991

local known = redis.call('HMGET', KEYS[1], 'epoch', 'position', 'identity')
local epoch, position = tonumber(known[1] or 0), tonumber(known[2] or 0)
if not (epoch >= 0 and epoch <= MAX_NUMBER and position >= 0 and position <= MAX_NUMBER) then
  return redis.error_reply('ERR these are numbers of no event')
end
local new_epoch, new_position = tonumber(ARGV[1]), tonumber(ARGV[2])
if new_epoch > epoch or (new_epoch == epoch and new_position > position) then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'position', ARGV[2], 'identity', ARGV[3])
end
return {epoch, position, known[3] or ''}
