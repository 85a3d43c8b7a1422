-- What is remembered of those who number their messages. Not a script: it stands before publish.lua and is used there.
--
-- One value for each producer, which is a name within a room and a subject:
--
--   <term> <limit> <floor>;<first>-<last>,<first>-<last>;@<term> <number>:<seq> <number>:<seq>^<highest>@<term> ...
--
-- Behind the second ';' is a log: the newest messages in the order in which they were stored, under which term and seq.
-- Where a number is not the highest so far, '^' says which is. So whether a message is new shows at the value's end, and
-- remembering it is an APPEND of a few bytes. <term> is the log's last. A value that would become longer than <limit> is
-- written anew: its numbers are added to the ranges, and the log keeps the newest RESULTS.
--
-- So every number from <floor> on is known exactly, in whatever order they came. When there are more than RANGES, the
-- lowest are given up, and <floor> rises above them: a number below it that is found nowhere may have been stored or not.

local RESULTS, RANGES = 256, 32
-- Bytes up to which a value is written as a whole, which is one call less, and up to which a log is left as it is.
local SHORT, SMALL = 256, 4096
-- More than any value of ours has; and the largest number.
local LONGEST, MOST = 65536, 9007199254740991

local producers = {}

local function int(number)
  return string.format('%.0f', number)
end

-- For all that follows the entry, which cannot be taken back: what may not be done must not keep the rest from being done,
-- or what is stored is not known when it is sent again. The first refusal is told in the end.
local refusal

local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    refusal = refusal or reply
  end
end

-- What bounds numbers is checked where they are read: whoever wrote the value may have meant harm. Nothing if there is none.
local function exact(digits)
  local number = tonumber(digits)
  return number and number <= MOST and number or nil
end

-- A term as we write it, or nothing.
local function word(text, at)
  local term = string.match(text, '^[%l%d]+', at)
  return term and #term <= 32 and term or nil
end

local function producer(key)
  if not producers[key] then
    local value = redis.call('GET', key) or ''
    local term, limit, floor, ranges, log = string.match(value, '^(%w+) (%d+) (%d+);([%d%-,]*);()@%w')
    local number, highest = string.match(string.sub(value, -56), ' (%d+):%d+%^?(%d*)$')
    floor, highest = exact(floor or ''), exact(highest ~= '' and highest or number or '')
    if not (floor and highest) or #value > LONGEST then
      -- None, or not written by us.
      value, term, limit, floor, ranges, log, highest = '', '', 0, 0, '', 1, -1
    end
    producers[key] = {
      value = value, term = term, limit = math.min(tonumber(limit), LONGEST), floor = floor, ranges = ranges, log = log,
      highest = highest, new = {}, places = {},
    }
  end
  return producers[key]
end

-- The ranges as numbers, read once: a call may ask for many. More than RANGES are none of ours.
local function spans(known)
  if not known.spans then
    known.spans = {}
    for first, last in string.gmatch(known.ranges, '(%d+)%-(%d+)') do
      first, last = exact(first), exact(last)
      if first and last and #known.spans < RANGES then
        known.spans[#known.spans + 1] = { first, last }
      end
    end
  end
  return known.spans
end

-- 'term seq' of the entry at this place of the log, nothing if it cannot be read.
local function first_time_of(known, at, seq)
  local mark, next_mark = known.log, known.log
  while next_mark and next_mark < at do
    mark, next_mark = next_mark, string.find(known.value, '@', next_mark + 1, true)
  end
  local term, digits = word(known.value, mark + 1), string.match(known.value, '^%d+', seq)
  return term and digits and exact(digits) and term .. ' ' .. digits
end

-- Nothing if a number is new. Else 'term seq' of the first time, its place among the new messages of this call, 'known',
-- or 'stale'.
local function recall(key, text)
  local known, number = producer(key), tonumber(text)
  if known.places[text] or number > known.highest then
    return known.places[text]
  end
  local at, seq = string.find(known.value, ' ' .. text .. ':', known.log, true)
  local first_time = at and first_time_of(known, at, seq + 1)
  if first_time then
    return first_time
  end
  for _, span in ipairs(spans(known)) do
    if span[1] <= number and number <= span[2] then
      return 'known'
    end
  end
  return number < known.floor and 'stale' or nil
end

-- A number that is new will be stored at this place among the new messages of this call.
local function note(key, text, place)
  local known = producer(key)
  known.places[text] = place
  known.new[#known.new + 1] = { text, place }
end

-- The log's numbers as ranges, and where its entries stand, each with its section. Nothing if it cannot be read.
local function read(log)
  local ranges, run, entries, section = {}, nil, {}, nil
  for at, kind, text in string.gmatch(log, '()([@ ])([^@ ]*)') do
    if kind == '@' then
      section = word(text, 1)
    else
      local number = exact(string.match(text, '^(%d+):%d+') or '')
      if not (number and section) then
        return nil
      end
      if run and number == run[2] + 1 then
        run[2] = number
      else
        run = { number, number }
        ranges[#ranges + 1] = run
      end
      entries[#entries + 1] = { at, section }
    end
  end
  return ranges, entries
end

-- Adds the log's numbers to the ranges, of which the highest are kept. Gives the log without what is older than its newest
-- entries; nothing if it cannot be read.
local function settle(known, log)
  local ranges, entries = read(log)
  if not ranges then
    return nil
  end
  for _, span in ipairs(spans(known)) do
    ranges[#ranges + 1] = span
  end
  table.sort(ranges, function(one, other) return one[1] < other[1] end)
  local merged, kept = {}, {}
  for _, range in ipairs(ranges) do
    local before = merged[#merged]
    if before and range[1] <= before[2] + 1 then
      before[2] = math.max(before[2], range[2])
    else
      merged[#merged + 1] = range
    end
  end
  local given_up = math.max(#merged - RANGES, 0)
  if given_up > 0 then
    known.floor = math.max(known.floor, merged[given_up][2] + 1)
  end
  for at = given_up + 1, #merged do
    kept[#kept + 1] = int(merged[at][1]) .. '-' .. int(merged[at][2])
  end
  known.ranges = table.concat(kept, ',')
  local first = entries[#entries - RESULTS + 1]
  return first and '@' .. first[2] .. string.sub(log, first[1]) or log
end

-- False for a user who may not, as may be whose rights are older than this script: the value is written anew then.
local function append_to(key, added)
  local reply = redis.pcall('APPEND', key, added)
  return type(reply) == 'number'
end

-- What was noted is stored: the message at place 1 under seq `before` + 1.
local function remember(term, before, window)
  for key, known in pairs(producers) do
    local added = {}
    for _, new in ipairs(known.new) do
      local number, entry = tonumber(new[1]), ' ' .. new[1] .. ':' .. int(before + new[2])
      if number < known.highest then
        entry = entry .. '^' .. int(known.highest)
      end
      known.highest = math.max(known.highest, number)
      added[#added + 1] = entry
    end
    added = table.concat(added)
    if added == '' then
      -- It only asked again.
    elseif known.term == term and #known.value > SHORT and #known.value + #added <= known.limit
      and append_to(key, added) then
      try('PEXPIRE', key, window)
    else
      local log = string.sub(known.value, known.log) .. (known.term == term and '' or '@' .. term) .. added
      if #log > SMALL then
        log = settle(known, log)
        if not log or #log > LONGEST / 2 then
          -- What cannot be read counts as none.
          log, known.ranges, known.floor = '@' .. term .. added, '', 0
        end
      end
      local limit = math.min(math.max(SMALL, 2 * (#log + #known.ranges)), LONGEST)
      local head = term .. ' ' .. int(limit) .. ' ' .. int(known.floor) .. ';' .. known.ranges .. ';'
      try('SET', key, head .. log, 'PX', window)
    end
  end
end

