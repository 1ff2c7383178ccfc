-- Publishes some events of one channel, in order of seq and of one epoch.
--
-- One script, so that an event is never live without being in the log, and never in the log without being the
-- next one. Repeating it is harmless: that is what lets relays crash and race.
--
-- KEYS  1 log  2 head
-- ARGV  1 epoch  2 length of the log  3 seconds of the log  4 seconds of the head  5 live channel
--       6 `restart` where a gap is accepted: the log then begins anew behind it
--       7, 8, 9 seq, text and signature of the first event, and so on; the signature may be empty
-- Returns what became of it (OK, DUP, GAP, STALE), the epoch and the seq of the head.

local MAX_NUMBER = 9007199254740991 -- of an epoch or a seq: JSON's and Lua's numbers are exact up to here

local epoch = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[2], 'epoch', 'seq')

-- A full Redis permits DEL, and after its first write it permits a script any other: events would pass
-- `maxmemory`. So the first write is one that a full Redis refuses, and that changes nothing.
local function empty_log()
  if redis.pcall('EXISTS', KEYS[1]) == 0 then return end -- where EXISTS is not granted, there may be a log
  redis.call('HSET', KEYS[2], 'epoch', head[1] or '0', 'seq', head[2] or '0')
  if not head[1] then redis.call('DEL', KEYS[2]) end
  redis.call('DEL', KEYS[1])
end

local head_epoch, last = tonumber(head[1] or 0), tonumber(head[2] or 0)
if not (head_epoch <= MAX_NUMBER and last <= MAX_NUMBER) then
  return redis.error_reply('ERR these are numbers of no event')
end
if head_epoch > epoch then return {'STALE', head_epoch, last} end
if head_epoch < epoch then
  empty_log()
  last = 0
end
local answer = 'DUP'
for i = 7, #ARGV, 3 do
  local seq = tonumber(ARGV[i])
  if seq > last then
    if seq ~= last + 1 then
      if ARGV[6] ~= 'restart' then return {'GAP', epoch, last} end
      empty_log()
    end
    local message = ARGV[1] .. ' ' .. ARGV[i] .. ' ' .. ARGV[i + 1]
    if ARGV[i + 2] == '' then
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[i] .. '-0', 'e', ARGV[i + 1])
    else
      -- A field of its own: what was before this version can't take it for a part of the text.
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[i] .. '-0', 'e', ARGV[i + 1], 's', ARGV[i + 2])
      message = ARGV[i + 2] .. ' ' .. message
    end
    redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'seq', ARGV[i])
    redis.call('PUBLISH', ARGV[5], message)
    last = seq
    answer = 'OK'
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {answer, epoch, last}
