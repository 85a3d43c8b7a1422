-- Applies presence operations of one room and publishes those that changed something as one envelope.
--
-- KEYS  1 members (sorted set, all scores 0, so ordered by text: '<client id> <incarnation> <name>'), 2 version,
--       3 names (hash, name -> client id; only where names are unique)
-- ARGV  1 channel, 2 node that the envelope names, 3 incarnation, 4 room, 5 members wanted, 6 '1' if names are unique,
--       7 number of operations,
--       then per operation: 'E' (enter), 'L' (leave) or 'R' (rename), client id, name, encoded operation,
--       or, alone: 'V' (evict what the incarnation left), the id to begin behind or '', entries to look at, ''
-- Returns { version, online, one mark per operation ('c' changed, 'r' a member that was there entered under another
--       name, 's' same as before, 't' name taken) or, after an evict, the id to go on behind, '' at the end; how many
--       were online before; then the members, in the order of their ids, or, after an evict, those that it removed }
--
-- A sorted set and not a hash: pages by id are exact and cost O(log n), where HSCAN may repeat and ignores COUNT.
-- Nothing expires: what a dead node leaves behind is evicted by another, and an empty room has no keys.

local members, version_key, names = KEYS[1], KEYS[2], KEYS[3]
local channel, node, incarnation, room = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted, unique, count = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
-- Also where names need not be unique any more: the index must not outlive its members.
local indexed = unique or redis.call('EXISTS', names) == 1

local function int(number)
  return string.format('%.0f', number)
end

-- The parts of an entry: ids have 36 bytes, incarnations no spaces.
local function parts(entry)
  local tag, name = string.match(entry, '^(%S+) (.*)$', 38)
  return string.sub(entry, 1, 36), tag, name
end

local function free_name(id, entry)
  local _, _, name = parts(entry)
  if indexed and name and redis.call('HGET', names, name) == id then
    redis.call('HDEL', names, name)
  end
end

local function is_taken(id, name)
  if not unique then
    return false
  end
  local owner = redis.call('HGET', names, name)
  return owner and owner ~= id
end

-- A leave as an encoded operation: length, kind, id, name; numbers little-endian.
local function encoded_leave(id, name)
  local hex = string.gsub(id, '-', '')
  if #hex ~= 32 or string.find(hex, '%X') or not name or #name > 64 then
    return nil
  end
  local bytes = string.gsub(hex, '..', function(pair) return string.char(tonumber(pair, 16)) end)
  return string.char(18 + #name, 0, 0, 0, 2) .. bytes .. string.char(#name) .. name
end

local effective, marks, evicted = {}, {}, {}
local before = redis.call('ZCARD', members)

local function apply(kind, id, name, encoded)
  -- ' ' follows an id, and '!' is the next character: exactly this client's entry lies between.
  local old = redis.call('ZRANGEBYLEX', members, '[' .. id .. ' ', '(' .. id .. '!')[1]
  local new = nil
  if kind == 'E' or (kind == 'R' and old) then
    if is_taken(id, name) then
      return 't'
    end
    new = id .. ' ' .. incarnation .. ' ' .. name
  end
  if old == new then
    return 's'
  end
  if new then
    redis.call('ZADD', members, 0, new)
  end
  if old then
    redis.call('ZREM', members, old)
    free_name(id, old)
  end
  if new and unique then
    redis.call('HSET', names, name, id)
  end
  local _, _, old_name = parts(old or '')
  -- Who is only taken over, under the same name, neither came nor went.
  if not (old and new and old_name == name) then
    effective[#effective + 1] = encoded
    return kind == 'E' and old and 'r' or 'c'
  end
  return 's'
end

-- Looks at the next entries and removes those of the incarnation. Returns where to go on.
local function evict(behind, limit)
  local from = behind == '' and '-' or '(' .. behind .. '!'
  local entries = redis.call('ZRANGEBYLEX', members, from, '+', 'LIMIT', 0, limit)
  for _, entry in ipairs(entries) do
    local id, tag, name = parts(entry)
    if tag == incarnation then
      redis.call('ZREM', members, entry)
      free_name(id, entry)
      effective[#effective + 1] = encoded_leave(id, name)
      evicted[#evicted + 1] = entry
    end
  end
  return #entries == limit and string.sub(entries[limit], 1, 36) or ''
end

local mark
if ARGV[8] == 'V' then
  mark = evict(ARGV[9], tonumber(ARGV[10]))
else
  for i = 0, count - 1 do
    marks[i + 1] = apply(ARGV[8 + 4 * i], ARGV[9 + 4 * i], ARGV[10 + 4 * i], ARGV[11 + 4 * i])
  end
  mark = table.concat(marks)
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
    redis.call('DEL', members, version_key, names)
  else
    redis.call('SET', version_key, int(version))
  end
  redis.call('PUBLISH', channel, 'RC1 P ' .. room .. ' ' .. node .. ' ' .. int(version) .. ' ' .. int(online) .. ' '
    .. #effective .. '\n' .. table.concat(effective))
end

local reply = { int(version), int(online), mark, int(before) }
for _, entry in ipairs(evicted) do
  reply[#reply + 1] = entry
end
if wanted > 0 then
  for _, member in ipairs(redis.call('ZRANGEBYLEX', members, '-', '+', 'LIMIT', 0, wanted)) do
    reply[#reply + 1] = member
  end
end
return reply
