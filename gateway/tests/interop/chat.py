"""Rooms over all nodes, seen by a client that shares no code with the gateway (PyPI `websockets`).

    python3 chat.py ws://127.0.0.1:1111 ws://127.0.0.1:2222 [--rooms 50] [--members 20] [--each 5]

Members of every room are spread over the given nodes and each publishes. Every member must receive every message of
its rooms exactly once, all members of a room in one order, seq without a hole. Prints `N passed, N failed`; exits 1
when something failed.
"""

import argparse
import asyncio
import json
import random
import sys
import uuid

from websockets.asyncio.client import connect

DEADLINE = 120  # seconds for the whole of a step, on a loaded machine


class Member:
    """One connection in one room."""

    def __init__(self, socket, room, number):
        self.socket, self.room, self.number = socket, room, number
        self.client_id = self.node = self.joined = None
        self.got, self.acks, self.errors = [], {}, []
        self.online = 0

    async def enter(self):
        welcome = json.loads(await self.socket.recv())
        assert welcome["type"] == "welcome", f"first came {welcome}"
        joined = json.loads(await self.socket.recv())
        assert joined["type"] == "joined" and joined["room"] == self.room, f"second came {joined}"
        self.client_id, self.node, self.joined = welcome["clientId"], welcome["nodeId"], joined
        self.online = joined["online"]
        self.got.extend(joined["messages"])

    async def publish(self, each):
        for count in range(each):
            text = f"{self.number}/{count}"
            await self.socket.send(
                json.dumps({"type": "publish", "room": self.room, "data": {"by": self.number, "n": count}, "ref": text})
            )

    async def read_until(self, done):
        while not done(self):
            self.take(json.loads(await self.socket.recv()))

    def take(self, frame):
        kind = frame["type"]
        if kind == "message":
            self.got.append(frame)
        elif kind == "ack":
            self.acks[frame["ref"]] = frame
        elif kind == "presence":
            self.online = frame["online"]
        elif kind in ("error", "reset", "reconnect"):
            self.errors.append(frame)


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, wrong):
        """`wrong`: a list of what contradicts it."""
        if wrong:
            self.failed += 1
            print(f"FAIL {what}: {len(wrong)} times, as {wrong[0]}")
        else:
            self.passed += 1
            print(f"ok   {what}")


async def open_member(url, room, number, gate):
    async with gate:
        socket = await connect(f"{url.rstrip('/')}/ws/{room}?name=member-{number}", max_queue=None, compression=None)
        member = Member(socket, room, number)
        await member.enter()
        return member


def judge_room(members, each):
    """What is wrong with what the members of one room received, by kind."""
    wrong = {"lost": [], "twice": [], "order": [], "holes": [], "acks": [], "senders": []}
    room = members[0].room
    sent = {(member.number, count) for member in members for count in range(each)}
    by_number = {member.number: member.client_id for member in members}
    first = [message["id"] for message in members[0].got]
    for member in members:
        got = [(message["data"]["by"], message["data"]["n"]) for message in member.got]
        if sent - set(got):
            wrong["lost"].append(f"{room} member {member.number} misses {sorted(sent - set(got))[:3]}")
        if len(got) != len(set(got)):
            wrong["twice"].append(f"{room} member {member.number}")
        if [message["id"] for message in member.got] != first:
            wrong["order"].append(f"{room} member {member.number}")
        seqs = [message["seq"] for message in member.got]
        if seqs != list(range(1, len(sent) + 1)):
            wrong["holes"].append(f"{room} member {member.number}: {seqs[:3]}..{seqs[-3:]}")
        if any(message["from"]["id"] != by_number[message["data"]["by"]] for message in member.got):
            wrong["senders"].append(f"{room} member {member.number}")
        own = {f"{m['data']['by']}/{m['data']['n']}": m["seq"] for m in member.got if m["data"]["by"] == member.number}
        if own != {ref: ack.get("seq") for ref, ack in member.acks.items()}:
            wrong["acks"].append(f"{room} member {member.number}")
    return wrong


async def run(args, tally):
    tag = uuid.uuid4().hex[:8]  # so that it can be run again against the same Redis
    gate = asyncio.Semaphore(50)
    names = [f"interop-{tag}-{number}" for number in range(args.rooms)]
    places = [(args.nodes[number % len(args.nodes)], room, number) for room in names for number in range(args.members)]
    random.shuffle(places)
    members = await asyncio.gather(*(open_member(*place, gate) for place in places))
    by_room = {room: sorted((m for m in members if m.room == room), key=lambda m: m.number) for room in names}
    nodes = {member.node for member in members}
    tally.check(f"{len(members)} members are spread over {len(args.nodes)} nodes",
                [] if len(nodes) == len(set(args.nodes)) else [nodes])

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(member.read_until(lambda m: m.online == args.members) for member in members))
    tally.check("everyone learns how many are in the room", [])

    expected = args.members * args.each

    def all_there(member):
        return len(member.got) >= expected and len(member.acks) + len(member.errors) >= args.each

    async with asyncio.timeout(DEADLINE):
        readers = asyncio.gather(*(member.read_until(all_there) for member in members))
        await asyncio.gather(*(member.publish(args.each) for member in members))
        await readers
        # A pong comes after everything that was due before it: whatever came twice would be here by then.
        for member in members:
            await member.socket.send('{"type":"ping"}')
        for member in members:
            while (frame := json.loads(await member.socket.recv()))["type"] != "pong":
                member.take(frame)

    verdicts = [judge_room(group, args.each) for group in by_room.values()]
    for kind, what in [
        ("lost", f"every member receives all {expected} messages of its room"),
        ("twice", "nothing comes twice"),
        ("order", "all members of a room see one order"),
        ("holes", "seq counts from 1 without a hole"),
        ("acks", "each ack names the seq that the message came with"),
        ("senders", "every message names its sender"),
    ]:
        tally.check(what, [line for verdict in verdicts for line in verdict[kind]])
    tally.check("nobody was told of an error", [f"{m.room}: {m.errors[0]}" for m in members if m.errors])

    for group in by_room.values():
        await group[0].socket.close()
    rest = [member for group in by_room.values() for member in group[1:]]
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(member.read_until(lambda m: m.online == args.members - 1) for member in rest))
    tally.check("everyone learns that one has left", [])
    await asyncio.gather(*(member.socket.close() for member in rest))


def main():
    parser = argparse.ArgumentParser(description="Rooms over all nodes, seen by an independent client.")
    parser.add_argument("nodes", nargs="+", help="ws://host:port of each node")
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--each", type=int, default=5, help="messages that every member publishes")
    args = parser.parse_args()
    tally = Tally()
    try:
        asyncio.run(run(args, tally))
    except (Exception, asyncio.CancelledError) as error:  # a scenario cut short is a failure, told in one line
        tally.check(f"the scenario runs to its end ({type(error).__name__})", [str(error) or "deadline passed"])
    print(f"{tally.passed} passed, {tally.failed} failed")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
