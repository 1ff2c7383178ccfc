-- Adds to what a customer has seen, never takes away, and notifies the customer's other devices of what is new.
--
-- Seen is a place and ranges of seqs beyond it, `<epoch>.<seq>+<first>-<last>+…` (shared/extents.py). The same
-- sum comes of any order of reports.
--
-- KEYS  1 seen
-- ARGV  1 what was seen  2 seconds to keep it  3 live channel; empty to notify nobody
--       4 signature of the first  5 signature of its notice without ranges  6 with them; all may be empty
-- Returns 1 where it was news, else 0.
--
-- What is signed comes from the database, which has the sum already: it contains what is known here, or is
-- outdated. Should it be neither, nobody has signed the sum; it is forgotten, and gateways ask the history.

local MAX_NUMBER = 9007199254740991
local MAX_RANGES = 64

-- The ranges of `+42+45-47`; nil where it is none.
local function parse_ranges(text)
  local ranges = {}
  while text ~= '' do
    local first, rest = string.match(text, '^%+(%d+)(.*)$')
    if not first then return nil end
    local last, after = string.match(rest, '^%-(%d+)(.*)$')
    first, last, text = tonumber(first), tonumber(last or first), after or rest
    if first > last or last > MAX_NUMBER or #ranges >= MAX_RANGES then return nil end
    table.insert(ranges, {first, last})
  end
  return ranges
end

-- Epoch, seq and ranges; epoch 0 where it is none.
local function parse(text)
  local epoch, seq, rest = string.match(text or '', '^(%d+)%.(%d+)([%d+-]*)$')
  epoch, seq = tonumber(epoch or 0), tonumber(seq or 0)
  local ranges = parse_ranges(rest or '')
  if epoch > MAX_NUMBER or seq > MAX_NUMBER or not ranges then return 0, 0, {} end
  return epoch, seq, ranges
end

local function union(seq, ranges)
  table.sort(ranges, function(one, other) return one[1] < other[1] end)
  local kept = {}
  for _, range in ipairs(ranges) do
    local newest = kept[#kept]
    if range[1] <= seq + 1 then
      seq = math.max(seq, range[2])
    elseif newest and range[1] <= newest[2] + 1 then
      newest[2] = math.max(newest[2], range[2])
    else
      table.insert(kept, {range[1], range[2]})
    end
  end
  while #kept > MAX_RANGES do table.remove(kept, 1) end
  return seq, kept
end

-- Written as they are: Lua's own way has an exponent above 1e14.
local function number(value) return string.format('%.0f', value) end

local function format_ranges(ranges)
  local parts = {}
  for _, range in ipairs(ranges) do
    local last = range[1] == range[2] and '' or '-' .. number(range[2])
    table.insert(parts, '+' .. number(range[1]) .. last)
  end
  return table.concat(parts)
end

local stored = redis.call('GET', KEYS[1]) or ''
local known, signed = string.match(stored, '^[^ ]*'), ARGV[4] ~= ''
local epoch, seq, ranges = parse(known)
local new_epoch, new_seq, new_ranges = parse(ARGV[1])
if new_epoch < epoch then return 0 end
if new_epoch > epoch then epoch, seq, ranges = new_epoch, -1, {} end

local before = seq
for _, range in ipairs(new_ranges) do table.insert(ranges, range) end
seq, ranges = union(math.max(seq, new_seq), ranges)
local place, beyond = number(epoch) .. '.' .. number(seq), format_ranges(ranges)
if epoch == 0 then return 0 end
if place .. beyond == known then
  -- It may have been written before there were keys.
  if signed and known == ARGV[1] and stored == known then
    redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[4], 'EX', ARGV[2])
  end
  return 0
end

if not signed then
  redis.call('SET', KEYS[1], place .. beyond, 'EX', ARGV[2])
elseif place .. beyond == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[4], 'EX', ARGV[2])
else
  redis.call('DEL', KEYS[1])
end
if ARGV[3] ~= '' then
  local of_place, of_ranges = '', ''
  if signed then
    seq, beyond = new_seq, string.match(ARGV[1], '%+.*$') or ''
    of_place, of_ranges = ARGV[5] .. ' ', ARGV[6] .. ' '
  end
  local words = 'seen ' .. number(epoch) .. ' ' .. number(seq)
  -- Gateways of before ranges understand the place alone.
  if seq > before or beyond == '' then redis.call('PUBLISH', ARGV[3], of_place .. words) end
  if beyond ~= '' then redis.call('PUBLISH', ARGV[3], of_ranges .. words .. beyond) end
end
return 1
