"""Syncthing with an untrusted device as host, for relay.py: A and B know the folder's password, H has it encrypted."""
import http.client
import json
import os
import socket
import subprocess
import time

from relay_lab import AT_HOST, IP, Process, files_in, make, same, until

PORT = {"A": 22001, "B": 22002, "H": 22003}
PASSWORD = "correct horse battery staple"


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Syncthing:
    """Three of them, with defaults but for what would reach for the internet."""

    def __init__(self, work):
        self.work, self.running = work, {}
        self.home = {side: f"{work}/st{side}" for side in "AHB"}
        self.folder = {side: f"{work}/{side}-folder" for side in "AHB"}
        self.id = {}
        for side in "AHB":
            os.makedirs(f"{self.folder[side]}/.stfolder")
            self.tell("generate", f"--home={self.home[side]}", "--no-default-folder", "--skip-port-probing")
            self.id[side] = self.tell("--home", self.home[side], "--device-id").strip()
        for side in "AHB":
            self.configure(side)

    def tell(self, *words):
        done = subprocess.run(["syncthing", *words], capture_output=True, text=True, check=True,
                              env={**os.environ, "HOME": self.work, "STNOUPGRADE": "1"})
        return done.stdout

    def configure(self, side):
        others = "AB" if side == "H" else "H"

        def place(other):
            return IP[other] if side == "H" else AT_HOST[side]
        devices = "".join(
            f'<device id="{self.id[other]}" name="{other}" compression="metadata"><address>'
            f'{"dynamic" if other == side else f"tcp://{place(other)}:{PORT[other]}"}</address></device>'
            for other in side + others)
        secret = "" if side == "H" else f"<encryptionPassword>{PASSWORD}</encryptionPassword>"
        shared = "".join(f'<device id="{self.id[other]}">{"" if other == side else secret}</device>' for other in side + others)
        kind = "receiveencrypted" if side == "H" else "sendreceive"
        options = {"listenAddress": f"tcp://0.0.0.0:{PORT[side]}", "globalAnnounceEnabled": "false",
                   "localAnnounceEnabled": "false", "relaysEnabled": "false", "natEnabled": "false", "startBrowser": "false",
                   "urAccepted": -1, "urSeen": 9, "crashReportingEnabled": "false", "autoUpgradeIntervalH": 0}
        with open(f"{self.home[side]}/config.xml", "w") as out:
            out.write(
                f'<configuration version="36"><folder id="x" label="x" path="{self.folder[side]}" type="{kind}" '
                f'rescanIntervalS="3600" fsWatcherEnabled="true" fsWatcherDelayS="10">{shared}</folder>{devices}'
                f'<gui enabled="true" tls="false"><address>{self.socket(side)}</address><apikey>k</apikey></gui><options>'
                + "".join(f"<{key}>{value}</{key}>" for key, value in options.items()) + "</options></configuration>")

    def socket(self, side):
        return f"{self.work}/{side}.sock"

    def start(self, side):
        command = ["syncthing", "serve", f"--home={self.home[side]}", "--no-browser", "--no-restart", "--no-upgrade",
                   "--no-default-folder"]
        self.running[side] = Process(side, command, f"{self.work}/{side}.log", {"HOME": self.work, "STNOUPGRADE": "1"})

    def stop(self, side):
        self.running.pop(side).end()
        if os.path.exists(self.socket(side)):
            os.unlink(self.socket(side))

    def ask(self, side, path, method="GET"):
        connection = Unix(self.socket(side))
        try:
            connection.request(method, path, headers={"X-API-Key": "k"})
            reply = connection.getresponse()
            text = reply.read()
            if reply.status >= 300:
                raise RuntimeError(f"{path}: {reply.status} {text[:200]!r}")
            return json.loads(text) if text.strip() else None
        finally:
            connection.close()

    def has(self, side, files):
        try:
            state = self.ask(side, "/rest/db/status?folder=x")
        except (OSError, RuntimeError, http.client.HTTPException):
            return False
        return state["state"] == "idle" and state["needTotalItems"] == 0 and state["localFiles"] >= files


def copied(kind, options, work, lab):
    """As `copied` of relay.py."""
    import relay
    peers = Syncthing(work)
    a, b = peers.folder["A"], peers.folder["B"]
    row = {"row": kind, "c": "syncthing", "files": make(kind, a, options.small)}
    want = files_in(a)
    begun = time.perf_counter()
    peers.start("A")
    until(lambda: peers.has("A", row["files"]), "A knows its files")
    row["know_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    peers.start("H")
    until(lambda: peers.has("H", row["files"]), "the host holds everything")
    row["fill_s"] = time.perf_counter() - begun
    row["host_cpu_s"] = peers.running["H"].cpu()
    peers.stop("A")
    begun = time.perf_counter()
    peers.start("B")
    until(lambda: files_in(b) == want, "B has everything from the host", pause=0.1)
    row["fetch_s"] = time.perf_counter() - begun
    row.update(same=same(a, b), host_peak_mb=peers.running["H"].memory("VmHWM"))
    relay.say(row)
    if kind == "F2":
        peers.start("A")
        until(lambda: all(peers.has(side, row["files"]) for side in "AHB"), "all agree")
        until(lambda: json.dumps(peers.ask("H", "/rest/system/connections")).count('"connected": true') >= 2,
              "A and B are connected to the host", limit=120)
        relay.say(relay.renamed("syncthing", lab, a, b, lambda: peers.ask("A", "/rest/db/scan?folder=x", "POST")))
    for side in list(peers.running):
        peers.stop(side)
