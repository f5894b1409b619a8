"""The peer asyncssh. Reads one JSON object a line, answers one JSON object a line: connect, once, load."""
import warnings

warnings.simplefilter("ignore")

import asyncio
import json
import sys
import time

import asyncssh


async def main():
    connections = []
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def connect(port, username, key_file, wanted):
        for _ in range(wanted):
            connections.append(
                await asyncssh.connect(
                    "127.0.0.1", port, username=username, client_keys=[key_file], known_hosts=None, config=None,
                    encryption_algs=["aes128-gcm@openssh.com"],
                )
            )

    async def run(connection, command):
        start = time.perf_counter()
        result = await connection.run(command)
        if result.exit_status != 0:
            raise RuntimeError(f"expected exit code 0, got {result.exit_status}")
        return (time.perf_counter() - start) * 1000

    async def load(callers, for_ms, command):
        latencies = []
        start = time.perf_counter()

        async def call(number):
            while (time.perf_counter() - start) * 1000 < for_ms:
                latencies.append(await run(connections[number % len(connections)], command))

        await asyncio.gather(*(call(number) for number in range(callers)))
        return {"elapsedMs": (time.perf_counter() - start) * 1000, "latenciesMs": latencies}

    while line := await lines.readline():
        ask = json.loads(line)
        try:
            if ask["op"] == "connect":
                value = await connect(ask["port"], ask["username"], ask["keyFile"], ask["connections"])
            elif ask["op"] == "once":
                value = await run(connections[0], ask["command"])
            else:
                value = await load(ask["callers"], ask["forMs"], ask["command"])
            answer = {"value": value}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
