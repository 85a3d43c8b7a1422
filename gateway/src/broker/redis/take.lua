-- Takes out of a bucket, as many of those wanted as there are.
--
-- KEYS  1 bucket (string: '<debt> <when it was that, us>'; absent: no debt)
-- ARGV  1 gained a second, 2 most it holds, 3 wanted
-- Returns { granted, us until there is another (0 if all were granted) }

local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local debt = 0
local before, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+%.%d+) (%d+)$')
if before then
  local gained = math.max(0, now - tonumber(at)) * rate / 1000000
  debt = math.max(0, math.min(tonumber(before), burst) - gained)
end

-- A little more than there is, so that rounding makes nobody wait once more.
local granted = math.max(0, math.min(wanted, math.floor(burst - debt + 0.000001)))
debt = debt + granted
if granted > 0 then
  local paid = math.ceil(debt * 1000 / rate) + 1
  redis.call('SET', KEYS[1], string.format('%.6f %.0f', debt, now), 'PX', string.format('%.0f', paid))
end

local wait = 0
if granted < wanted then
  wait = math.ceil(math.max(0, debt + 1 - burst) * 1000000 / rate)
end
return { granted, wait }
