-- Renews a node's lease, and hands it the leases that ran out, to take over what those nodes left.
--
-- KEYS  1 leases (sorted set: incarnation -> when it runs out, ms by this server's clock),
--       2 nodes (hash: incarnation -> '<number of its last beat> <connections> <rest>'; absent once claimed)
-- ARGV  1 incarnation, 2 how long a lease lasts (ms), 3 number of this beat, 4 number of the last beat that was answered
--       (0: none was), 5 connections, 6 the rest of its note, 7 most leases to hand over, then the claims that are being worked on
-- Returns { 'lost' }, or { 'kept', nodes, connections, ms until the next lease runs out, then the claims }
--
-- The number tells a dataset that forgot beats (emptied, restored, failed over to a replica that lagged) from one that
-- did not: what it says about the members is as old as its beats.

local leases, nodes = KEYS[1], KEYS[2]
local me, expiry, number, answered = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function int(value)
  return string.format('%.0f', value)
end

local score = tonumber(redis.call('ZSCORE', leases, me) or nil)
local note = redis.call('HGET', nodes, me)
local last = note and tonumber(string.match(note, '^%d+'))
if answered > 0 and not (score and last and last >= answered and last <= number) then
  -- Whatever bears this incarnation is stale: it runs out like a dead node's, once the living have entered anew. A claim
  -- stays whose it is.
  if note or not score then
    redis.call('ZADD', leases, int(now + expiry), me)
  end
  redis.call('HDEL', nodes, me)
  return { 'lost' }
end

redis.call('ZADD', leases, int(now + expiry), me)
redis.call('HSET', nodes, me, int(number) .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
for i = 8, #ARGV do
  if redis.call('ZSCORE', leases, ARGV[i]) then
    redis.call('ZADD', leases, int(now + expiry), ARGV[i])
  end
end

local claims = {}
-- Whose own lease had run out was cut off, and so, perhaps, was everybody: they get the time until the next beat.
if score and score > now then
  claims = redis.call('ZRANGEBYSCORE', leases, '-inf', int(now), 'LIMIT', 0, tonumber(ARGV[7]))
  for _, dead in ipairs(claims) do
    redis.call('ZADD', leases, int(now + expiry), dead)
    redis.call('HDEL', nodes, dead)
  end
end

local living, connections = 0, 0
for _, entry in ipairs(redis.call('HVALS', nodes)) do
  living = living + 1
  connections = connections + (tonumber(string.match(entry, '^%d+ (%d+)')) or 0)
end
local first = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
local reply = { 'kept', int(living), int(connections), int(math.max(0, tonumber(first[2]) - now)) }
for _, dead in ipairs(claims) do
  reply[#reply + 1] = dead
end
return reply
