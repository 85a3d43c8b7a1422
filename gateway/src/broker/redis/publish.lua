-- Stores a batch of messages of one durable room under the next seqs and publishes it as one envelope.
--
-- KEYS  1 meta (hash: t term, s last seq, i identity of the dataset, b terms that ended, oldest first, as
--       'term start end ', and the start of the present one), 2 stream, then for each idempotent message, in order, the
--       key of its id or of its producer
-- ARGV  1 channel, 2 node, 3 room, 4 a fresh term in case one is needed, 5 identity, '' to ask the server, 6 '1' if it
--       was read for this call, 7 messages to keep, 8 history ttl (ms), 9 idempotency window (ms), 10 number of
--       messages, then per message: the encoded record, and what its key is: '' if it has none, 'id', or its number, the
--       key being its producer's
-- Returns { term, ts in ms, then per message: its seq (integer) if stored now, else 'term seq' of the first time, 'known' if
-- that is not known any more, or 'stale', see producers.lua }, or nothing at all ({}) if the identity given is not the
-- room's: it may be an old one, and has to be read again.
--
-- A term names one unbroken run of seqs. A dataset that was restored, or is another server's, may lack what was handed
-- out before, so it goes on under a term of its own, and remembers how far each earlier term is to be believed.
--
-- A script is not rolled back. So the one write that can be refused, XADD, comes first: if it is, nothing has changed. A
-- user who may do XADD and not all that follows is told so, and what was stored is remembered as far as it may be.
-- Numbers stay below 2^53, and are written with %.0f because tostring() rounds above 10^14.

local meta, stream = KEYS[1], KEYS[2]
local channel, node, room, fresh_term = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local identity, confirmed = ARGV[5], ARGV[6]
local keep, ttl, window, count = tonumber(ARGV[7]), ARGV[8], ARGV[9], tonumber(ARGV[10])
-- More than anyone comes back from. A reader of an earlier one is told that its term is unknown.
local MOST_ENDED = 16

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

-- Term, first and last seq of the stream's newest entry of ours; nothing if there is none. Others' are passed over.
local function newest()
  for _, count in ipairs({ 1, 32 }) do
    local entries = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', count)
    for _, entry in ipairs(entries.err and {} or entries) do
      local term, first, held = string.match(entry[2][2], '^RC1 D %S+ %S+ ([%l%d]+) (%d+) %d+ (%d+)\n')
      local last = term and tonumber(first) + tonumber(held) - 1
      if last and #term <= 32 and last < 9007199254000000 then
        return term, tonumber(first), last
      end
    end
  end
end

local clock = redis.call('TIME')
local ts = int(clock[1] * 1000 + math.floor(clock[2] / 1000))

-- Which messages are new? `first_time[i]` is set for those that are not: the answer, or the index in `new`.
local new, new_keys, first_time, seen, next_key = {}, {}, {}, {}, 3
for i = 1, count do
  local record, mark, key = ARGV[9 + 2 * i], ARGV[10 + 2 * i], nil
  if mark ~= '' then
    key = KEYS[next_key]
    next_key = next_key + 1
  end
  if mark == 'id' then
    first_time[i] = seen[key] or redis.call('GET', key) or nil
  elseif key then
    first_time[i] = recall(key, mark)
  end
  if not first_time[i] then
    new[#new + 1] = record
    if mark == 'id' then
      seen[key] = #new
      new_keys[#new_keys + 1] = { key, #new }
    elseif key then
      note(key, mark, #new)
    end
  end
end

local state = redis.call('HMGET', meta, 't', 's', 'i', 'b')
local term, last, bounds = state[1], tonumber(state[2] or nil), state[4] or ''

if #new == 0 then
  local reply = { term or '', ts }
  for i = 1, count do
    reply[i + 2] = first_time[i]
  end
  return reply
end

if identity == '' then
  identity = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '-'
elseif state[3] and state[3] ~= identity and confirmed ~= '1' then
  return {}
end

-- Ends the term with the last seq it is known to have, and goes on above all that the stream ever had.
local renewed = false
local function renew()
  local ended = {}
  for term, first, stop in string.gmatch(bounds, '(%w+) (%d+) (%d+) ') do
    ended[#ended + 1] = term .. ' ' .. first .. ' ' .. stop .. ' '
  end
  local function close(term, first, stop)
    ended[#ended + 1] = term .. ' ' .. int(first) .. ' ' .. int(stop) .. ' '
  end
  local kept, first, stop = newest()
  if term and last then
    if kept == term then
      last = math.max(last, stop)
    end
    close(term, tonumber(string.match(bounds, '(%d+)$') or 1), last)
  end
  if kept and kept ~= term and stop > (last or 0) then
    -- The metadata was lost, or is older than the stream: whoever read the stream can still come back. Its term may
    -- have begun earlier than its newest entry; nothing rests on that.
    close(kept, first, stop)
  end
  last = math.max(last or 0, stop or 0)
  local top = stream_top()
  if top > 9007199254000000 then
    -- No room above it for exact numbers. A stream that ends there is not ours.
    redis.call('DEL', stream)
  else
    last = math.max(last, top)
  end
  term, renewed = fresh_term, true
  bounds = table.concat(ended, '', math.max(#ended - MOST_ENDED + 1, 1)) .. int(last + 1)
end

if not (term and last) or state[3] ~= identity then
  renew()
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
  if renewed or stream_top() < last + #new then
    return added
  end
  -- Something else wrote to the stream: go on above it, in a new term.
  renew()
  added, envelope = append()
  if type(added) == 'table' and added.err then
    return added
  end
end

if renewed then
  try('HSET', meta, 't', term, 's', int(last + #new), 'i', identity, 'b', bounds)
else
  try('HSET', meta, 's', int(last + #new))
end
try('PEXPIRE', meta, ttl)
try('PEXPIRE', stream, ttl)
for _, entry in ipairs(new_keys) do
  try('SET', entry[1], term .. ' ' .. int(last + entry[2]), 'PX', window)
end
remember(term, last, window)
try('PUBLISH', channel, envelope)
if refusal then
  return refusal
end

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
