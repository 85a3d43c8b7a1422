-- Applies presence operations of one room and publishes those that changed something as one envelope.
--
-- KEYS  1 members (sorted set, all scores 0, so ordered by text: '<client id> <node> <name>'), 2 version
-- ARGV  1 channel, 2 node, 3 room, 4 ttl (ms), 5 members wanted, 6 number of operations,
--       then per operation: 'E' (enter), 'L' (leave) or 'R' (rename), client id, name, encoded operation
-- Returns { version, online, then the members, in the order of their ids }
--
-- A sorted set and not a hash: pages by id are exact and cost O(log n), where HSCAN may repeat and ignores COUNT.

local members, version_key = KEYS[1], KEYS[2]
local channel, node, room, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted, count = tonumber(ARGV[5]), tonumber(ARGV[6])

local function int(number)
  return string.format('%.0f', number)
end

local effective = {}
for i = 0, count - 1 do
  local kind, id, name, encoded = ARGV[7 + 4 * i], ARGV[8 + 4 * i], ARGV[9 + 4 * i], ARGV[10 + 4 * i]
  -- ' ' follows an id, and '!' is the next character: exactly this client's entry lies between.
  local old = redis.call('ZRANGEBYLEX', members, '[' .. id .. ' ', '(' .. id .. '!')[1]
  local new = nil
  if kind == 'E' or (kind == 'R' and old) then
    new = id .. ' ' .. node .. ' ' .. name
  end
  if old ~= new then
    if new then
      redis.call('ZADD', members, 0, new)
    end
    if old then
      redis.call('ZREM', members, old)
    end
    effective[#effective + 1] = encoded
  end
end

local online = redis.call('ZCARD', members)
local version = tonumber(redis.call('GET', version_key) or nil)
if not version then
  -- A version starts at the time in µs, so that it rises also over rooms that emptied and were forgotten.
  local clock = redis.call('TIME')
  version = clock[1] * 1000000 + clock[2]
end
if #effective > 0 then
  version = version + 1
  if online == 0 then
    redis.call('DEL', members, version_key)
  else
    redis.call('SET', version_key, int(version), 'PX', ttl)
  end
  redis.call('PUBLISH', channel, 'RC1 P ' .. room .. ' ' .. node .. ' ' .. int(version) .. ' ' .. int(online) .. ' '
    .. #effective .. '\n' .. table.concat(effective))
end
if online > 0 then
  redis.call('PEXPIRE', members, ttl)
  redis.call('PEXPIRE', version_key, ttl)
end

local reply = { int(version), int(online) }
if wanted > 0 then
  for _, member in ipairs(redis.call('ZRANGEBYLEX', members, '-', '+', 'LIMIT', 0, wanted)) do
    reply[#reply + 1] = member
  end
end
return reply
