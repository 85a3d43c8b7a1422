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

local function producer(key)
  if not producers[key] then
    local value = redis.call('GET', key) or ''
    local term, limit, floor, ranges, log = string.match(value, '^(%w+) (%d+) (%d+);([%d%-,]*);()@')
    local number, highest = string.match(string.sub(value, -56), ' (%d+):%d+%^?(%d*)$')
    if not (log and number) then
      -- None, or not written by us.
      value, term, limit, floor, ranges, log, number, highest = '', '', 0, 0, '', 1, -1, nil
    end
    producers[key] = {
      value = value, term = term, limit = tonumber(limit), floor = tonumber(floor), ranges = ranges, log = log,
      highest = tonumber(highest) or tonumber(number), new = {}, places = {},
    }
  end
  return producers[key]
end

-- Nothing if a number is new. Else 'term seq' of the first time, its place among the new messages of this call, 'known',
-- or 'stale'.
local function recall(key, text)
  local known, number = producer(key), tonumber(text)
  if known.places[text] or number > known.highest then
    return known.places[text]
  end
  local at, seq = string.find(known.value, ' ' .. text .. ':', known.log, true)
  if at then
    local mark, next_mark = nil, known.log
    while next_mark and next_mark < at do
      mark, next_mark = next_mark, string.find(known.value, '@', next_mark + 1, true)
    end
    return string.match(known.value, '^%w+', mark + 1) .. ' ' .. string.match(known.value, '^%d+', seq + 1)
  end
  for first, last in string.gmatch(known.ranges, '(%d+)%-(%d+)') do
    if tonumber(first) <= number and number <= tonumber(last) then
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

-- Adds the log's numbers to the ranges, of which the highest are kept. Gives the log without what is older than its newest
-- entries.
local function settle(known, log)
  local ranges, run, entries, section = {}, nil, {}, nil
  for first, last in string.gmatch(known.ranges, '(%d+)%-(%d+)') do
    ranges[#ranges + 1] = { tonumber(first), tonumber(last) }
  end
  for at, kind, word in string.gmatch(log, '()([@ ])(%w+)') do
    if kind == '@' then
      section = word
    else
      local number = tonumber(word)
      if run and number == run[2] + 1 then
        run[2] = number
      else
        run = { number, number }
        ranges[#ranges + 1] = run
      end
      entries[#entries + 1] = { at, section }
    end
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
      end
      local limit = math.max(SMALL, 2 * (#log + #known.ranges))
      local head = term .. ' ' .. int(limit) .. ' ' .. int(known.floor) .. ';' .. known.ranges .. ';'
      try('SET', key, head .. log, 'PX', window)
    end
  end
end

