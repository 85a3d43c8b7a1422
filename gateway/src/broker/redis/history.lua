-- Reads a part of a durable room's stream.
--
-- KEYS  1 meta, 2 stream
-- ARGV  1 'L' (latest), 'A' (after) or 'B' (before), 2 the seq meant by A and B, 3 most messages (at least 1)
-- Returns { term or '', last seq, first retained seq or 0, lowest seq meant, highest seq meant, then the entries that
-- hold any of these, oldest first }; the caller cuts what a batch holds beyond both ends.

local meta, stream = KEYS[1], KEYS[2]
local mode, seq, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function int(number)
  return string.format('%.0f', number)
end

local state = redis.call('HMGET', meta, 't', 's')
local term, top = state[1], tonumber(state[2] or nil)
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
if not (term and top) then
  term, top = '', 0
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if newest then
    top = tonumber(string.match(newest[1], '^(%d+)'))
  end
end
local first = oldest and tonumber(string.match(oldest[2][2], '^RC1 D %S+ %S+ %S+ (%d+) ')) or 0

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

local reply = { term, int(top), int(first), int(low), int(high) }
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
