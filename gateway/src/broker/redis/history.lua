-- Reads a part of a durable room's stream.
--
-- KEYS  1 meta, 2 stream
-- ARGV  1 'L' (latest), 'A' (after) or 'B' (before), 2 the seq meant by A and B, 3 most messages (at least 1)
-- Returns { term or '', last seq, first retained seq or 0, lowest seq meant, highest seq meant, the terms that ended as
-- 'term start end ' each and the start of the present one, then the entries that hold any of what is meant, oldest
-- first }; the caller cuts what a batch holds beyond both ends.

local meta, stream = KEYS[1], KEYS[2]
local mode, seq, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function int(number)
  return string.format('%.0f', number)
end

-- A replica may lag behind what was handed out, and must not be taken for a dataset that went back in time.
local role = redis.pcall('INFO', 'replication')
if type(role) == 'string' and string.find(role, 'role:slave', 1, true) then
  return redis.error_reply("READONLY a replica's history may be old")
end

-- The first seq of the oldest entry that is ours. Others' entries are passed over, but not endlessly.
local function first_seq()
  for _, count in ipairs({ 1, 32 }) do
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', count)) do
      local seq = string.match(entry[2][2], '^RC1 D %S+ %S+ %S+ (%d+) ')
      if seq then
        return tonumber(seq)
      end
    end
  end
  return 0
end

local state = redis.call('HMGET', meta, 't', 's', 'b')
local term, top, bounds = state[1], tonumber(state[2] or nil), state[3] or '1'
if not (term and top) then
  -- What is known of a room without metadata is what its stream says. See publish.lua.
  term, top, bounds = '', 0, '0'
  for _, count in ipairs({ 1, 32 }) do
    for _, entry in ipairs(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', count)) do
      local kept, first, held = string.match(entry[2][2], '^RC1 D %S+ %S+ ([%l%d]+) (%d+) %d+ (%d+)\n')
      local last = kept and tonumber(first) + tonumber(held) - 1
      if last and #kept <= 32 and last < 9007199254000000 then
        term, top, bounds = kept, last, int(tonumber(first))
        break
      end
    end
    if top > 0 then
      break
    end
  end
end

local low, high
if mode == 'L' then
  low, high = top - limit + 1, top
elseif mode == 'A' then
  low, high = seq + 1, math.min(seq + limit, top)
else
  high = math.min(seq - 1, top)
  low = high - limit + 1
end
low = math.max(low, 1)

local reply = { term, int(top), int(first_seq()), int(low), int(high), bounds }
if low > high then
  return reply
end
-- An entry's id is the last seq it holds: all up to below `high`, and the one that reaches it.
for _, entry in ipairs(redis.call('XRANGE', stream, int(low) .. '-0', '(' .. int(high) .. '-0')) do
  reply[#reply + 1] = entry[2][2]
end
local last = redis.call('XRANGE', stream, int(high) .. '-0', '+', 'COUNT', 1)[1]
if last then
  reply[#reply + 1] = last[2][2]
end
return reply
