"""The cluster's DNS in its smallest form: A records of Services, and of what headless ones stand for, straight from the API.

Real pods need it to find Redis and each other. AAAA questions get an empty answer, other names do not exist."""

import socket
import struct
import threading

from api import Api, Refused

A = 1


class Dns:
    def __init__(self, api: Api, address: str, port: int = 53):
        self.api = api
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                packet, client = self.socket.recvfrom(1500)
            except OSError:
                return
            threading.Thread(target=self.answer, args=(packet, client), daemon=True).start()

    def answer(self, packet: bytes, client):
        labels, at = [], 12
        while length := packet[at]:
            labels.append(packet[at + 1:at + 1 + length].decode())
            at += 1 + length
        kind, = struct.unpack_from(">H", packet, at + 1)
        addresses = self.addresses(labels)
        records = b"" if addresses is None or kind != A else b"".join(
            struct.pack(">HHHIH", 0xC00C, A, 1, 1, 4) + socket.inet_aton(address) for address in addresses)
        flags = 0x8580 | (3 if addresses is None else 0)
        head = packet[:2] + struct.pack(">HHHHH", flags, 1, len(records) // 16, 0, 0)
        self.socket.sendto(head + packet[12:at + 5] + records, client)

    def addresses(self, labels: list[str]) -> list[str] | None:
        """None: no such name."""
        *pod, service, namespace, tail = labels[:-3] + [".".join(labels[-3:])] if len(labels) >= 5 else [None] * 3
        if tail != "svc.cluster.local":
            return None
        try:
            cluster_ip = self.api.get("services", service, namespace)["spec"].get("clusterIP")
            if cluster_ip != "None" and not pod:
                return [cluster_ip]
            slices = self.api.list("endpointslices", namespace, f"kubernetes.io/service-name={service}")
        except Refused:
            return None
        return [address for s in slices for e in s.get("endpoints") or [] if e["conditions"].get("ready")
                and (not pod or e.get("hostname") == pod[0]) for address in e["addresses"]]
