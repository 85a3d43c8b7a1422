-- Applies presence operations of one room and publishes those that changed something as one envelope.
--
-- KEYS  1 members (sorted set, all scores 0, so ordered by text: '<client id> <incarnation> <name><rest>'), 2 version,
--       3 names (hash, name -> client id; only where names are unique)
--       The rest of an entry is '', or byte 31 and the user, which may be empty, or that and byte 31 and the info.
-- ARGV  1 channel, 2 node that the envelope names, 3 incarnation, 4 room, 5 members wanted, 6 '1' if names are unique,
--       7 number of operations,
--       then per operation: 'E' (enter), 'L' (leave) or 'R' (rename), client id, name, rest, encoded operation,
--       or, alone: 'V' (evict what the incarnation left), the id to begin behind or '', entries to look at, '', ''
-- Returns { version, online, one mark per operation ('c' changed, 'r' a member that was there entered and looks
--       otherwise, 's' same as before, 't' name taken) or, after an evict, the id to go on behind, '' at the end; how many
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

-- The parts of an entry: ids have 36 bytes, incarnations no spaces. What is shown is the name and the rest.
local function parts(entry)
  local tag, shown = string.match(entry, '^(%S+) (.*)$', 38)
  return string.sub(entry, 1, 36), tag, shown
end

local function free_name(id, entry)
  local _, _, shown = parts(entry)
  local name = shown and string.match(shown, '^[^\31]*')
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

-- Two bytes, little-endian.
local function short(number)
  return string.char(number % 256, math.floor(number / 256))
end

-- A leave as an encoded operation: length, kind and flags, id, name, user, info.
local function encoded_leave(id, shown)
  local hex = string.gsub(id, '-', '')
  if #hex ~= 32 or string.find(hex, '%X') or not shown then
    return nil
  end
  local name, user, info = string.match(shown, '^([^\31]*)\31?([^\31]*)\31?(.*)$')
  if #name > 64 or #user > 128 or #info > 1024 then
    return nil
  end
  local kind = 2
  local leave = string.gsub(hex, '..', function(pair) return string.char(tonumber(pair, 16)) end)
    .. string.char(#name) .. name
  if user ~= '' then
    kind, leave = kind + 8, leave .. string.char(#user) .. user
  end
  if info ~= '' then
    kind, leave = kind + 16, leave .. short(#info) .. info
  end
  return short(1 + #leave) .. string.char(0, 0, kind) .. leave
end

local effective, marks, evicted = {}, {}, {}
local before = redis.call('ZCARD', members)

local function apply(kind, id, name, rest, encoded)
  -- ' ' follows an id, and '!' is the next character: exactly this client's entry lies between.
  local old = redis.call('ZRANGEBYLEX', members, '[' .. id .. ' ', '(' .. id .. '!')[1]
  local new = nil
  if kind == 'E' or (kind == 'R' and old) then
    if is_taken(id, name) then
      return 't'
    end
    new = id .. ' ' .. incarnation .. ' ' .. name .. rest
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
  local _, _, shown = parts(old or '')
  -- Who is only taken over, and looks the same, neither came nor went.
  if not (old and new and shown == name .. rest) then
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
    local id, tag, shown = parts(entry)
    if tag == incarnation then
      redis.call('ZREM', members, entry)
      free_name(id, entry)
      effective[#effective + 1] = encoded_leave(id, shown)
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
    local at = 8 + 5 * i
    marks[i + 1] = apply(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
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
