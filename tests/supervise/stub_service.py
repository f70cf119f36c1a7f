"""A service of a few lines in place of the real one: answers, tells its facts, and writes down who asks."""

import argparse
import asyncio
import signal
from pathlib import Path

from tornado import netutil, web
from tornado.httpserver import HTTPServer

from jupyterhub_bkai.datadir import DataFolder, Facts, read_addresses, read_secrets, write_facts


class Info(web.RequestHandler):
    def get(self) -> None:
        self.write({"fake_devices": True})


async def main(folder: DataFolder) -> None:
    read_secrets(folder)
    addresses = read_addresses(folder)
    application = web.Application([(r"/services/bkai/api/v1/info", Info)])
    HTTPServer(application).listen(addresses.service_port, "127.0.0.1")
    trusted = HTTPServer(application)
    trusted.add_socket(netutil.bind_unix_socket(addresses.hub_socket, mode=0o600))
    write_facts(folder, Facts(fake_devices=True, process_users="single", enforcement="booked, not enforced"))
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    asyncio.run(main(DataFolder(parser.parse_args().data)))
