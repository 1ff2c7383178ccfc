-- Claims these names in Redis for one installation, for some seconds; the same again keeps them.
--
-- KEYS  1 newest event  2 owner
-- ARGV  1 installation  2 seconds; 0 gives them back  3 `take` where they may be taken if nobody has them
--       4 `settle` to note that what is published from now on is this installation's
-- Returns the owner now (empty: nobody), the milliseconds it has left, and the installation that was noted last.

local owner = redis.call('GET', KEYS[2]) or ''
if owner == ARGV[1] then
  if ARGV[2] == '0' then
    redis.call('DEL', KEYS[2])
    owner = ''
  else
    redis.call('EXPIRE', KEYS[2], ARGV[2]) -- not SET: a full Redis refuses that
  end
elseif owner == '' and ARGV[3] == 'take' then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
  owner = ARGV[1]
end
local noted = redis.call('HMGET', KEYS[1], 'installation')[1] or ''
if owner == ARGV[1] and ARGV[4] == 'settle' and noted ~= owner then
  redis.call('HSET', KEYS[1], 'installation', owner)
end
return {owner, redis.call('PTTL', KEYS[2]), noted}
