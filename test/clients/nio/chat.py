#!/usr/bin/python3
"""Two people of two tenants with matrix-nio and libolm: a client stack that shares no code with the others.

Log in, an encrypted room, messages both ways, verification by emoji, a key asked for and shared with a new device,
media (plain and encrypted), filters, typing, receipts, redaction, history, devices, log out.
"""

import asyncio
import io
import json
import os
import re
import secrets
import sys
import tempfile
import time
import traceback
from urllib.parse import quote

import aiohttp
import nio
from nio.crypto import decrypt_attachment

PATIENCE = float(os.environ.get("HANSA_CLIENT_PATIENCE_MS", "30000")) / 1000


def need(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set; see test/clients/README.md")
    return value


URL = need("HANSA_URL")
ALICE, ALICE_PASSWORD = need("HANSA_ALICE"), need("HANSA_ALICE_PASSWORD")
BOB, BOB_PASSWORD = need("HANSA_BOB"), need("HANSA_BOB_PASSWORD")


class Failed(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failed(what)


def good(response, kind):
    """The response, when it is of the expected kind."""
    check(isinstance(response, kind), f"expected {kind.__name__}, got {response!r}")
    return response


class Client(nio.AsyncClient):
    """nio as it is today: the access token goes into a header. Debian's 0.20 still puts it into the URL."""

    async def send(self, method, path, data=None, headers=None, trace_context=None, timeout=None):
        path = re.sub(r"([?&])access_token=[^&]*&?", r"\1", path).rstrip("?&")
        if self.access_token:
            headers = {**(headers or {}), "Authorization": f"Bearer {self.access_token}"}
        return await super().send(method, path, data, headers, trace_context, timeout)


class Device:
    """One logged-in device that remembers every event and to-device message that it was given."""

    def __init__(self, user, store):
        config = nio.AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True, max_timeouts=2, max_limit_exceeded=5)
        self.client = Client(URL, user, store_path=store, config=config)
        self.events, self.to_device = [], []
        self.client.add_event_callback(lambda room, event: self.events.append((room.room_id, event)), nio.Event)
        self.client.add_to_device_callback(self.to_device.append, nio.ToDeviceEvent)

    @classmethod
    async def login(cls, user, password, name, folder):
        store = os.path.join(folder, name)
        os.mkdir(store)
        device = cls(user, store)
        session = good(await device.client.login(password, device_name=name), nio.LoginResponse)
        check(session.user_id == user, f"logged in as {session.user_id}")
        await device.turn()
        return device

    async def turn(self, timeout=500):
        """One round of what an nio client does: keys up, sync, keys down, messages to devices."""
        client = self.client
        if client.should_upload_keys:
            good(await client.keys_upload(), nio.KeysUploadResponse)
        good(await client.sync(timeout=timeout, full_state=client.next_batch == ""), nio.SyncResponse)
        if client.should_query_keys:
            good(await client.keys_query(), nio.KeysQueryResponse)
        if client.should_claim_keys:
            await client.keys_claim(client.get_users_for_key_claiming())
        for response in await client.send_to_device_messages():
            good(response, nio.ToDeviceResponse)

    def message(self, room, body):
        for where, event in self.events:
            if where == room and isinstance(event, nio.RoomMessageText) and event.body == body:
                return event
        return None

    async def say(self, room, body):
        sent = await self.client.room_send(
            room, "m.room.message", {"msgtype": "m.text", "body": body}, ignore_unverified_devices=True
        )
        return good(sent, nio.RoomSendResponse).event_id

    async def close(self):
        await self.client.close()


async def until(what, devices, probe):
    """Lets all the devices sync until the probe gives something."""
    end = time.monotonic() + PATIENCE
    while True:
        value = probe()
        if value:
            return value
        check(time.monotonic() < end, f"waited {PATIENCE:.0f} s in vain until {what}")
        await asyncio.gather(*(device.turn() for device in devices))


async def step(name, act):
    start = time.monotonic()
    try:
        value = await act
    except Exception:
        print(f"FAIL  {name} ({(time.monotonic() - start) * 1000:.0f} ms)", flush=True)
        raise
    print(f"ok    {name} ({(time.monotonic() - start) * 1000:.0f} ms)", flush=True)
    return value


async def fetch(client, path):
    """An authenticated GET that nio 0.20 does not know yet."""
    headers = {"Authorization": f"Bearer {client.access_token}"}
    async with aiohttp.ClientSession() as session, session.get(URL + path, headers=headers) as response:
        return response.status, await response.read()


def media_path(mxc):
    server, media = mxc[len("mxc://") :].split("/", 1)
    return f"/_matrix/client/v1/media/download/{quote(server)}/{quote(media)}"


class Scenario:
    def __init__(self, folder):
        self.folder = folder
        self.room = None

    async def log_in(self):
        self.a = await Device.login(ALICE, ALICE_PASSWORD, "alice nio 1", self.folder)
        self.b = await Device.login(BOB, BOB_PASSWORD, "bob nio", self.folder)
        who = good(await self.a.client.whoami(), nio.responses.WhoamiResponse)
        check(who.user_id == ALICE, f"whoami says {who.user_id}")

    async def encrypted_room(self):
        made = await self.a.client.room_create(
            name="Salt", topic="Where it comes from", invite=[BOB], initial_state=[nio.EnableEncryptionBuilder().as_dict()]
        )
        self.room = good(made, nio.RoomCreateResponse).room_id
        await until("bob is invited", [self.a, self.b], lambda: self.room in self.b.client.invited_rooms)
        check(self.b.client.invited_rooms[self.room].inviter == ALICE, "the invitation names who invites")
        good(await self.b.client.join(self.room), nio.JoinResponse)
        await until(
            "both see both, and that it is encrypted",
            [self.a, self.b],
            lambda: all(
                self.room in device.client.rooms
                and {ALICE, BOB} <= set(device.client.rooms[self.room].users)
                and device.client.rooms[self.room].encrypted
                and device.client.rooms[self.room].name == "Salt"
                for device in (self.a, self.b)
            ),
        )

    async def exchange(self):
        await self.a.say(self.room, "from Lüneburg")
        event = await until("bob reads", [self.b], lambda: self.b.message(self.room, "from Lüneburg"))
        check(event.decrypted and event.sender == ALICE, "it came encrypted, from alice")
        await self.b.say(self.room, "by the old road")
        event = await until("alice reads", [self.a], lambda: self.a.message(self.room, "by the old road"))
        check(event.decrypted and event.sender == BOB, "it came encrypted, from bob")

    async def verify(self):
        a, b = self.a, self.b
        theirs = a.client.device_store[BOB][b.client.device_id]
        good(await a.client.start_key_verification(theirs), nio.ToDeviceResponse)
        start = await until(
            "bob is asked", [a, b], lambda: next((e for e in b.to_device if isinstance(e, nio.KeyVerificationStart)), None)
        )
        transaction = start.transaction_id
        good(await b.client.accept_key_verification(transaction), nio.ToDeviceResponse)
        await until(
            "both have the key of the other",
            [a, b],
            lambda: all(
                transaction in device.client.key_verifications and device.client.key_verifications[transaction].other_key_set
                for device in (a, b)
            ),
        )
        emoji = [device.client.key_verifications[transaction].get_emoji() for device in (a, b)]
        check(emoji[0] == emoji[1] and len(emoji[0]) == 7, f"the same seven emoji: {emoji}")
        for device in (a, b):
            good(await device.client.confirm_short_auth_string(transaction), nio.ToDeviceResponse)
        mine = b.client.device_store[ALICE][a.client.device_id]
        await until("both trust", [a, b], lambda: theirs.verified and mine.verified)

    async def key_for_a_new_device(self):
        new = self.a2 = await Device.login(ALICE, ALICE_PASSWORD, "alice nio 2", self.folder)
        locked = await until(
            "the new device has the message, unreadable",
            [new, self.a],
            lambda: next((e for r, e in new.events if isinstance(e, nio.MegolmEvent) and e.sender == BOB), None),
        )
        await until(
            "alice's devices know each other",
            [new, self.a],
            lambda: new.client.device_id in self.a.client.device_store[ALICE]
            and self.a.client.device_id in new.client.device_store[ALICE],
        )
        self.a.client.verify_device(self.a.client.device_store[ALICE][new.client.device_id])
        new.client.verify_device(new.client.device_store[ALICE][self.a.client.device_id])
        good(await new.client.request_room_key(locked), nio.RoomKeyRequestResponse)
        curve = self.a.client.device_store[ALICE][new.client.device_id].curve25519
        await until(
            "the old device has claimed a key of the new one", [self.a, new], lambda: self.a.client.olm.session_store.get(curve)
        )
        # nio looks at the requests that it holds only when the sync token moves, so something has to happen.
        await self.b.turn()
        await self.b.say(self.room, "is it quiet here")
        await until(
            "the key was forwarded",
            [self.a, new],
            lambda: any(isinstance(e, nio.ForwardedRoomKeyEvent) for e in new.to_device),
        )
        check(new.client.decrypt_event(locked).body == "by the old road", "the new device reads the old message")
        await self.b.say(self.room, "for all your devices")
        for device in (self.a, new):
            await until("each device reads", [device], lambda: device.message(self.room, "for all your devices"))

    async def media(self):
        a, b = self.a.client, self.b.client
        plain = secrets.token_bytes(300_000)
        up, _ = await a.upload(lambda *_: io.BytesIO(plain), content_type="application/octet-stream", filename="salt.bin")
        mxc = good(up, nio.UploadResponse).content_uri
        check(mxc.startswith("mxc://" + ALICE.split(":", 1)[1] + "/"), f"{mxc} is of alice's tenant")
        up, keys = await a.upload(
            lambda *_: io.BytesIO(plain), content_type="image/png", filename="secret.png", encrypt=True, filesize=len(plain)
        )
        secret = good(up, nio.UploadResponse).content_uri
        for body, more in (("salt.bin", {"url": mxc}), ("secret.png", {"file": {"url": secret, **keys}})):
            sent = await a.room_send(
                self.room, "m.room.message", {"msgtype": "m.file", "body": body, **more}, ignore_unverified_devices=True
            )
            good(sent, nio.RoomSendResponse)
        event = await until(
            "bob has the file's event",
            [self.b],
            lambda: next((e for r, e in self.b.events if isinstance(e, nio.RoomEncryptedFile) and r == self.room), None),
        )
        status, body = await fetch(b, media_path(mxc))
        check(status == 200 and body == plain, f"bob downloads it: {status}, {len(body)} bytes")
        status, body = await fetch(b, media_path(event.url))
        check(status == 200, f"bob downloads the encrypted one: {status}")
        check(decrypt_attachment(body, event.key["k"], event.hashes["sha256"], event.iv) == plain, "and can decrypt it")
        status, body = await fetch(b, media_path("mxc://" + ALICE.split(":", 1)[1] + "/nothing-here"))
        check(status == 404 and json.loads(body)["errcode"] == "M_NOT_FOUND", f"what is not there: {status} {body!r}")

    async def filters(self):
        made = await self.a.client.room_create(name="Filters", invite=[BOB])
        room = self.filtered = good(made, nio.RoomCreateResponse).room_id
        good(await self.b.client.join(room), nio.JoinResponse)
        await until("alice has the room", [self.a], lambda: room in self.a.client.rooms)
        for i in range(6):
            sent = await self.a.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": f"n{i}"})
            good(sent, nio.RoomSendResponse)
        wanted = {"room": {"rooms": [room], "timeline": {"types": ["m.room.message"], "limit": 4}, "state": {"types": []}}}
        stored = good(await self.b.client.upload_filter(**wanted), nio.UploadFilterResponse)
        for query in (stored.filter_id, quote(json.dumps({**wanted, "presence": {"types": []}}))):
            status, body = await fetch(self.b.client, f"/_matrix/client/v3/sync?timeout=0&filter={query}")
            joined = json.loads(body)["rooms"]["join"]
            check(status == 200 and list(joined) == [room], f"only the room of the filter: {list(joined)}")
            bodies = [event["content"]["body"] for event in joined[room]["timeline"]["events"]]
            check(bodies == ["n2", "n3", "n4", "n5"], f"only messages, the last four: {bodies}")
            check(joined[room]["timeline"]["limited"], "and says that there is more")
            check(not joined[room].get("state", {}).get("events"), "no state")

    async def typing_and_receipts(self):
        a, b = self.a, self.b
        room = self.filtered
        await until("both have the room", [a, b], lambda: all(room in d.client.rooms for d in (a, b)))
        good(await b.client.room_typing(room, True, 20_000), nio.RoomTypingResponse)
        await until("bob types", [a], lambda: BOB in a.client.rooms[room].typing_users)
        good(await b.client.room_typing(room, False), nio.RoomTypingResponse)
        await until("bob stopped", [a], lambda: BOB not in a.client.rooms[room].typing_users)
        sent = await a.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "read me"})
        event = good(sent, nio.RoomSendResponse).event_id
        await until("bob has it", [b], lambda: b.message(room, "read me"))
        good(await b.client.update_receipt_marker(room, event), nio.UpdateReceiptMarkerResponse)
        await until(
            "alice sees the receipt",
            [a],
            lambda: BOB in a.client.rooms[room].read_receipts and a.client.rooms[room].read_receipts[BOB].event_id == event,
        )

    async def redaction_and_history(self):
        a, b, room = self.a, self.b, self.filtered
        target = b.message(room, "n3") or await until("bob has n3", [b], lambda: b.message(room, "n3"))
        good(await a.client.room_redact(room, target.event_id, reason="wrong"), nio.RoomRedactResponse)
        await until(
            "bob sees the redaction",
            [b],
            lambda: any(isinstance(e, nio.RedactionEvent) and e.redacts == target.event_id for r, e in b.events),
        )
        page = good(await b.client.room_messages(room, b.client.next_batch, limit=200), nio.RoomMessagesResponse)
        bodies = [event.body for event in page.chunk if isinstance(event, nio.RoomMessageText)]
        check(bodies == ["read me", "n5", "n4", "n2", "n1", "n0"], f"history without what was redacted: {bodies}")
        check(any(isinstance(event, nio.RedactedEvent) for event in page.chunk), "its place is kept")
        context = good(await b.client.room_context(room, page.chunk[-1].event_id), nio.RoomContextResponse)
        check(context.event.event_id == page.chunk[-1].event_id, "context is of the event")

    async def profiles_and_state(self):
        a, b, room = self.a.client, self.b.client, self.filtered
        name = "Alice " + secrets.token_hex(3)
        good(await a.set_displayname(name), nio.ProfileSetDisplayNameResponse)
        check(good(await b.get_displayname(ALICE), nio.ProfileGetDisplayNameResponse).displayname == name, "bob sees her name")
        await until("the member event follows", [self.b], lambda: b.rooms[room].users[ALICE].display_name == name)
        members = good(await b.joined_members(room), nio.JoinedMembersResponse)
        check({m.user_id for m in members.members} == {ALICE, BOB}, f"members: {members.members}")
        refused = await b.room_put_state(room, "m.room.name", {"name": "Bob's"})
        check(isinstance(refused, nio.RoomPutStateError) and refused.status_code == "M_FORBIDDEN", f"refused: {refused!r}")
        state = good(await b.room_get_state_event(room, "m.room.name"), nio.RoomGetStateEventResponse)
        check(state.content["name"] == "Filters", f"the name stays: {state.content}")

    async def devices(self):
        old = self.a2.client.device_id
        asked = good(await self.a.client.delete_devices([old]), nio.DeleteDevicesAuthResponse)
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": ALICE},
            "password": ALICE_PASSWORD,
            "session": asked.session,
        }
        good(await self.a.client.delete_devices([old], auth), nio.DeleteDevicesResponse)
        gone = await self.a2.client.whoami()
        check(isinstance(gone, nio.responses.WhoamiError) and gone.status_code == "M_UNKNOWN_TOKEN", f"the device is out: {gone!r}")
        await until(
            "bob's client drops the device",
            [self.b],
            lambda: old not in self.b.client.device_store[ALICE] or self.b.client.device_store[ALICE][old].deleted,
        )
        listed = good(await self.a.client.devices(), nio.DevicesResponse)
        check(old not in {device.id for device in listed.devices}, "and no longer listed")

    async def log_out(self):
        for device in (self.a, self.b):
            good(await device.client.logout(), nio.LogoutResponse)


async def main():
    start = time.monotonic()
    print(f"nio: matrix-nio {getattr(nio, '__version__', '0.20')} against {URL}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hansa-nio-") as folder:
        run = Scenario(folder)
        status = 1
        try:
            await step("log in", run.log_in())
            await step("an encrypted room over two tenants", run.encrypted_room())
            await step("messages both ways", run.exchange())
            await step("verification by emoji", run.verify())
            await step("a new device asks for a key and gets it", run.key_for_a_new_device())
            await step("media, plain and encrypted", run.media())
            await step("filters, stored and inline", run.filters())
            await step("typing and receipts", run.typing_and_receipts())
            await step("redaction, history, context", run.redaction_and_history())
            await step("profile, members, state", run.profiles_and_state())
            await step("a device is deleted", run.devices())
            await step("log out", run.log_out())
            print(f"nio: passed in {(time.monotonic() - start) * 1000:.0f} ms", flush=True)
            status = 0
        except Exception as err:
            print(f"nio: FAILED: {err}", flush=True)
            traceback.print_exc(file=sys.stdout)
        for name in ("a", "a2", "b"):
            device = getattr(run, name, None)
            if device:
                await device.close()
        return status


sys.exit(asyncio.run(main()))
