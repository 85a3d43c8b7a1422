-- Reads names of rooms out of the sets of all incarnations that have a lease, living or being tidied up behind: in one
-- step, so that a room whose members move from one node to another is never missed.
--
-- KEYS  1 leases (sorted set: incarnation -> when it runs out)
-- ARGV  1 what the keys of the sets begin with (sorted sets, all scores 0, so ordered by text), 2 from, 3 to (as for
--       ZRANGEBYLEX), 4 about how many names to look at in all, 5 least of one set
-- Returns { most of one set, then for each set with any: how many, the names }
--
-- Merging is left to the caller: Lua compares text by the server's locale.

local lives = redis.call('ZRANGE', KEYS[1], 0, -1)
local share = math.max(tonumber(ARGV[5]), math.ceil(tonumber(ARGV[4]) / math.max(1, #lives)))
local reply = { share }
for _, life in ipairs(lives) do
  local page = redis.call('ZRANGEBYLEX', ARGV[1] .. life, ARGV[2], ARGV[3], 'LIMIT', 0, share)
  if #page > 0 then
    reply[#reply + 1] = #page
    for _, name in ipairs(page) do
      reply[#reply + 1] = name
    end
  end
end
return reply
