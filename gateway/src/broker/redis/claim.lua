-- Counts connections of a user, as many of those wanted as fit beside those that all living nodes have.
--
-- KEYS  1 leases (sorted set: incarnation -> when it runs out, ms by this server's clock),
--       2 nodes (hash: incarnation -> its last beat; absent once claimed by who takes over)
-- ARGV  1 what the names of the incarnations' counts begin with (hashes: user -> connections; same slot as the keys),
--       2 incarnation, 3 user, 4 connections that this incarnation has, 5 wanted, 6 most in the cluster
-- Returns how many fit, or -1 if this incarnation has no lease
--
-- Who lives is known only here, so the counts' keys are not in KEYS; their hash tag is that of the keys.

local leases, nodes, counts, me, user = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local own, wanted, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local lives, others = false, 0
for _, incarnation in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. string.format('%.0f', now), '+inf')) do
  if redis.call('HGET', nodes, incarnation) then
    if incarnation == me then
      lives = true
    else
      others = others + (tonumber(redis.call('HGET', counts .. incarnation, user) or nil) or 0)
    end
  end
end
if not lives then
  return -1
end

local granted = math.max(0, math.min(wanted, most - others - own))
if own + granted > 0 then
  redis.call('HSET', counts .. me, user, string.format('%.0f', own + granted))
else
  redis.call('HDEL', counts .. me, user)
end
return granted
