-- Keeps a node's answer to an order for a while.
--
-- KEYS  1 answers (hash: node -> answer)
-- ARGV  1 node, 2 answer, 3 how long (ms)

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
