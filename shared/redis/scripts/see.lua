-- Moves a customer's seen place forward, never back, and notifies the customer's other devices if it moved.
--
-- KEYS  1 seen
-- ARGV  1 place, as `<epoch>.<seq>`  2 seconds to keep it  3 live channel; empty to notify nobody
-- Returns 1 where it moved, else 0.

local MAX_NUMBER = 9007199254740991

local function parts(text)
  local epoch, seq = string.match(text or '', '^(%d+)%.(%d+)$')
  epoch, seq = tonumber(epoch or 0), tonumber(seq or 0)
  if epoch > MAX_NUMBER or seq > MAX_NUMBER then return 0, 0 end
  return epoch, seq
end

local epoch, seq = parts(redis.call('GET', KEYS[1]) or nil)
local new_epoch, new_seq = parts(ARGV[1])
local moved = new_epoch > epoch or (new_epoch == epoch and new_seq > seq)
if moved then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
-- The text given, not the numbers: Lua writes those above 1e14 with an exponent.
if moved and ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], 'seen ' .. string.gsub(ARGV[1], '%.', ' ')) end
return moved and 1 or 0
