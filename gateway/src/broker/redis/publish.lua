-- Stores a batch of messages of one durable room under the next seqs and publishes it as one envelope.
--
-- KEYS  1 meta (hash: t term, s last seq), 2 stream, then one idempotency key per idempotent message, in order
-- ARGV  1 channel, 2 node, 3 room, 4 a fresh term in case one is needed, 5 messages to keep, 6 history ttl (ms),
--       7 idempotency window (ms), 8 number of messages, then per message: the encoded record, '1' if idempotent
-- Returns { term, ts in ms, then per message: its seq (integer) if stored now, else 'term seq' of the first time }
--
-- A script is not rolled back. So the one write that can be refused, XADD, comes first: if it is, nothing has changed.
-- Numbers stay below 2^53, and are written with %.0f because tostring() rounds above 10^14.

local meta, stream = KEYS[1], KEYS[2]
local channel, node, room, fresh_term = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local keep, ttl, window, count = tonumber(ARGV[5]), ARGV[6], ARGV[7], tonumber(ARGV[8])

local function int(number)
  return string.format('%.0f', number)
end

-- The highest seq the stream ever had, 0 without a stream. Costs a copy of two entries: only for the rare paths.
local function stream_top()
  local info = redis.pcall('XINFO', 'STREAM', stream)
  if info.err then
    return 0
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      return tonumber(string.match(info[i + 1], '^(%d+)'))
    end
  end
  return 0
end

local clock = redis.call('TIME')
local ts = int(clock[1] * 1000 + math.floor(clock[2] / 1000))

-- Which messages are new? `first_time[i]` is set for those that are not: a stored 'term seq', or the index in `new`.
local new, new_keys, first_time, seen, next_key = {}, {}, {}, {}, 3
for i = 1, count do
  local record, key = ARGV[7 + 2 * i], nil
  if ARGV[8 + 2 * i] == '1' then
    key = KEYS[next_key]
    next_key = next_key + 1
    first_time[i] = seen[key] or redis.call('GET', key) or nil
  end
  if not first_time[i] then
    new[#new + 1] = record
    if key then
      seen[key] = #new
      new_keys[#new_keys + 1] = { key, #new }
    end
  end
end

local state = redis.call('HMGET', meta, 't', 's')
local term, last = state[1], tonumber(state[2] or nil)

if #new == 0 then
  local reply = { term or '', ts }
  for i = 1, count do
    reply[i + 2] = first_time[i]
  end
  return reply
end

if not (term and last) then
  -- The room is new, or its metadata was lost: seqs go on from what survived, under a term of their own.
  term, last = fresh_term, stream_top()
end

local body = table.concat(new)

local function append()
  local top = last + #new
  local envelope = 'RC1 D ' .. room .. ' ' .. node .. ' ' .. term .. ' ' .. int(last + 1) .. ' ' .. ts .. ' ' .. #new
    .. '\n' .. body
  -- An entry's id is the last seq it holds, so what MINID drops holds nothing of the `keep` newest messages.
  local oldest = math.max(top - keep + 1, 0)
  return redis.pcall('XADD', stream, 'MINID', '=', int(oldest) .. '-0', int(top) .. '-0', 'e', envelope), envelope
end

local added, envelope = append()
if type(added) == 'table' and added.err then
  local top = stream_top()
  if top < last + #new then
    return added
  end
  -- Something else wrote to the stream, or it went back in time without its metadata: go on above it, in a new term.
  if top > 9007199254000000 then
    -- No room above it for exact numbers. A stream that ends there is not ours.
    redis.call('DEL', stream)
  else
    last = top
  end
  term = fresh_term
  added, envelope = append()
  if type(added) == 'table' and added.err then
    return added
  end
end

redis.call('HSET', meta, 't', term, 's', int(last + #new))
redis.call('PEXPIRE', meta, ttl)
redis.call('PEXPIRE', stream, ttl)
for _, entry in ipairs(new_keys) do
  redis.call('SET', entry[1], term .. ' ' .. int(last + entry[2]), 'PX', window)
end
redis.call('PUBLISH', channel, envelope)

local reply, stored = { term, ts }, last
for i = 1, count do
  local earlier = first_time[i]
  if not earlier then
    stored = stored + 1
    reply[i + 2] = stored
  elseif type(earlier) == 'number' then
    reply[i + 2] = term .. ' ' .. int(last + earlier)
  else
    reply[i + 2] = earlier
  end
end
return reply
