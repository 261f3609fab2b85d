// What people of two tenants do in rooms that are not encrypted, with matrix-js-sdk: profiles, rooms with an address,
// invitations, messages with edits, reactions and redactions, receipts, typing, unread counts, paging back, context,
// tags, media, power levels, kick and ban, sending again with the same transaction, refresh tokens, passwords.
import assert from "node:assert/strict";
import * as sdk from "matrix-js-sdk";
import { png } from "../png.mjs";
import { accounts, events, login, main, message, refused, room, step, text, until, url, withPassword } from "./kit.mjs";

const { alice, bob } = accounts;
const nonce = Date.now().toString(36);

/** Downloads media as today's clients do: authenticated. */
async function download(client, mxc, ...size) {
    const address = client.mxcUrlToHttp(mxc, ...size, ...Array(3 - size.length).fill(undefined), false, true, true);
    const answer = await fetch(address, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    return { status: answer.status, type: answer.headers.get("content-type"), body: Buffer.from(await answer.arrayBuffer()) };
}

await main("rooms", async () => {
    await step("discovery: versions, CORS, login flows", async () => {
        const anonymous = sdk.createClient({ baseUrl: url });
        const { versions } = await anonymous.getVersions();
        for (const version of ["v1.1", "v1.4", "v1.11"]) assert.ok(versions.includes(version), `${version} is listed`);
        const { flows } = await anonymous.loginFlows();
        assert.ok(flows.some((flow) => flow.type === "m.login.password"));
        for (const [method, path] of [["GET", "/_matrix/client/versions"], ["OPTIONS", "/_matrix/client/v3/sync"], ["GET", "/_matrix/client/v3/nothing"]]) {
            const answer = await fetch(url + path, { method, headers: { Origin: "https://app.example" } });
            assert.equal(answer.headers.get("access-control-allow-origin"), "*", `CORS on ${method} ${path}`);
        }
    });
    await step("a wrong password is refused", () =>
        refused(login({ ...alice, password: alice.password + "x" }, "none"), "M_FORBIDDEN", 403),
    );

    const a = await step("alice logs in", () => login(alice, "alice rooms"));
    const b = await step("bob logs in", () => login(bob, "bob rooms"));

    await step("whoami and capabilities", async () => {
        const me = await a.whoami();
        assert.deepEqual([me.user_id, me.device_id], [alice.id, a.getDeviceId()]);
        const capabilities = await a.getCapabilities();
        assert.ok(capabilities["m.room_versions"].available[capabilities["m.room_versions"].default]);
    });

    const picture = png(640, 480);
    const mxc = await step("alice uploads a picture and sets her profile", async () => {
        const { content_uri: uri } = await a.uploadContent(picture, { type: "image/png", name: "green.png" });
        assert.match(uri, new RegExp(`^mxc://${alice.id.split(":").slice(1).join(":")}/`));
        await a.setDisplayName(`Alice ${nonce}`);
        await a.setAvatarUrl(uri);
        const profile = await a.getProfileInfo(alice.id);
        assert.equal(profile.displayname, `Alice ${nonce}`);
        assert.equal(profile.avatar_url, uri);
        return uri;
    });

    const roomId = await step("alice makes a public room with an address", async () => {
        const { room_id: id } = await a.createRoom({
            preset: "public_chat",
            visibility: "public",
            room_alias_name: `harbour-${nonce}`,
            name: `Harbour ${nonce}`,
            topic: "Ships and their loads",
        });
        await room(a, id);
        const alias = `#harbour-${nonce}:${alice.id.split(":").slice(1).join(":")}`;
        assert.equal((await a.getRoomIdForAlias(alias)).room_id, id);
        const chunk = await until("the list holds the room", async () => {
            const answer = await a.publicRooms({ filter: { generic_search_term: `Harbour ${nonce}` } });
            return answer.chunk.length > 0 && answer.chunk;
        });
        assert.deepEqual(chunk.map((entry) => [entry.room_id, entry.num_joined_members]), [[id, 1]]);
        return id;
    });

    await step("bob of the other tenant is invited, sees the name, and joins", async () => {
        await a.invite(roomId, bob.id);
        const invited = await room(b, roomId, "invite");
        assert.equal(invited.name, `Harbour ${nonce}`);
        await b.joinRoom(roomId);
        const joined = await room(b, roomId);
        assert.equal(joined.getMember(alice.id).name, `Alice ${nonce}`);
        assert.equal(joined.getMember(alice.id).getMxcAvatarUrl(), mxc);
        await until("alice sees bob", () => a.getRoom(roomId).getMember(bob.id)?.membership === "join");
    });

    await step("messages both ways", async () => {
        await a.sendMessage(roomId, text("good morning"));
        await message(b, roomId, "good morning");
        await b.sendMessage(roomId, text("and to you"));
        await message(a, roomId, "and to you");
    });

    await step("an edit, a reaction and a redaction reach the other side", async () => {
        const { event_id: target } = await a.sendMessage(roomId, text("nine ships"));
        await message(b, roomId, "nine ships");
        await a.sendMessage(roomId, {
            ...text("* ten ships"),
            "m.new_content": text("ten ships"),
            "m.relates_to": { rel_type: "m.replace", event_id: target },
        });
        await until("bob sees the edit", () => b.getRoom(roomId).findEventById(target)?.getContent().body === "ten ships");
        await b.sendEvent(roomId, "m.reaction", {
            "m.relates_to": { rel_type: "m.annotation", event_id: target, key: "👍" },
        });
        await until("alice sees the reaction", () =>
            a.getRoom(roomId).relations.getChildEventsForEvent(target, "m.annotation", "m.reaction")?.getSortedAnnotationsByKey()?.[0]?.[0] === "👍",
        );
        const { event_id: slip } = await a.sendMessage(roomId, text("a slip of the pen"));
        await message(b, roomId, "a slip of the pen");
        await a.redactEvent(roomId, slip, undefined, { reason: "typo" });
        await until("bob sees it gone", () => b.getRoom(roomId).findEventById(slip)?.isRedacted());
        const fetched = await b.fetchRoomEvent(roomId, slip);
        assert.deepEqual(fetched.content, {});
        assert.equal(fetched.unsigned.redacted_because.content.reason, "typo");
    });

    await step("the same transaction sends once", async () => {
        const first = await a.sendEvent(roomId, "m.room.message", text("only once"), `t${nonce}`);
        const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/t${nonce}`;
        const again = await fetch(url + path, {
            method: "PUT",
            headers: { Authorization: `Bearer ${a.getAccessToken()}` },
            body: JSON.stringify(text("only once")),
        });
        assert.equal((await again.json()).event_id, first.event_id);
        await message(b, roomId, "only once");
        assert.equal(events(b, roomId).filter((event) => event.getContent().body === "only once").length, 1);
    });

    await step("unread counts, and the read receipt that clears them", async () => {
        const there = b.getRoom(roomId);
        await b.sendReadReceipt(there.getLiveTimeline().getEvents().at(-1));
        await until("nothing is unread", () => there.getUnreadNotificationCount("total") === 0);
        await a.sendMessage(roomId, text("unread one"));
        await a.sendMessage(roomId, text("unread two", { "m.mentions": { user_ids: [bob.id] } }));
        const last = await message(b, roomId, "unread two");
        await until("two are unread, one of them a mention", () =>
            there.getUnreadNotificationCount("total") === 2 && there.getUnreadNotificationCount("highlight") === 1,
        );
        await b.sendReadReceipt(last);
        await until("nothing is unread", () => there.getUnreadNotificationCount("total") === 0);
        await until("alice sees that bob has read it", () => a.getRoom(roomId).hasUserReadEvent(bob.id, last.getId()));
    });

    await step("typing comes and goes", async () => {
        await b.sendTyping(roomId, true, 20_000);
        await until("bob is typing", () => a.getRoom(roomId).getMember(bob.id).typing);
        await b.sendTyping(roomId, false, 0);
        await until("bob stopped", () => !a.getRoom(roomId).getMember(bob.id).typing);
    });

    await step("tags and account data reach the other device", async () => {
        const other = await login(bob, "bob tags");
        await b.setRoomTag(roomId, "m.favourite", { order: 0.25 });
        await until("the tag is there", () => other.getRoom(roomId)?.tags["m.favourite"]?.order === 0.25);
        await b.setAccountDataRaw("example.colour", { name: nonce });
        await until("the datum is there", () => other.getAccountData("example.colour")?.getContent().name === nonce);
        await b.setRoomAccountData(roomId, "example.mark", { at: nonce });
        await until("the room's datum is there", () => other.getRoom(roomId).getAccountData("example.mark")?.getContent().at === nonce);
        await other.logout(true);
    });

    await step("history: lazy members, paging back to the start, context", async () => {
        for (let i = 1; i <= 30; i++) await a.sendMessage(roomId, text(`line ${i}`));
        await message(b, roomId, "line 30"); // bob's server has all of it
        const fresh = await login(bob, "bob history", { start: { initialSyncLimit: 5, lazyLoadMembers: true } });
        const known = await room(fresh, roomId);
        assert.ok(events(fresh, roomId).length <= 5, "the first sync keeps to its limit");
        await message(fresh, roomId, "line 30");
        let rounds = 0;
        while (!events(fresh, roomId).some((event) => event.getType() === "m.room.create")) {
            assert.ok(++rounds < 20, "paging ends");
            await fresh.scrollback(known, 10);
        }
        const bodies = events(fresh, roomId).map((event) => event.getContent().body);
        assert.deepEqual(bodies.filter((body) => /^line /.test(body)), Array.from({ length: 30 }, (_, i) => `line ${i + 1}`));
        assert.equal(new Set(events(fresh, roomId).map((event) => event.getId())).size, events(fresh, roomId).length, "nothing twice");
        await known.loadMembersIfNeeded();
        assert.deepEqual(known.getJoinedMembers().map((member) => member.userId).sort(), [alice.id, bob.id].sort());
        const middle = events(fresh, roomId).find((event) => event.getContent().body === "line 10");
        const path = `/rooms/${encodeURIComponent(roomId)}/context/${encodeURIComponent(middle.getId())}`;
        const around = await fresh.http.authedRequest("GET", path, { limit: "4" });
        assert.equal(around.event.event_id, middle.getId());
        assert.equal(around.events_before[0].content.body, "line 9", "before: newest first");
        assert.equal(around.events_after[0].content.body, "line 11", "after: oldest first");
        assert.ok(around.state.some((event) => event.type === "m.room.create"));
        await fresh.logout(true);
    });

    await step("a burst is a gap for who was away", async () => {
        const filter = JSON.stringify({ room: { timeline: { limit: 3 } } });
        const sync = async (since) =>
            (await fetch(`${b.getHomeserverUrl()}/_matrix/client/v3/sync?filter=${encodeURIComponent(filter)}&timeout=0${since ? "&since=" + encodeURIComponent(since) : ""}`, {
                headers: { Authorization: `Bearer ${b.getAccessToken()}` },
            })).json();
        const { next_batch: since } = await sync();
        for (let i = 1; i <= 6; i++) await a.sendMessage(roomId, text(`burst ${i}`));
        await message(b, roomId, "burst 6");
        const after = (await sync(since)).rooms.join[roomId];
        assert.equal(after.timeline.limited, true);
        assert.deepEqual(after.timeline.events.map((event) => event.content.body), ["burst 4", "burst 5", "burst 6"]);
        const before = await b.createMessagesRequest(roomId, after.timeline.prev_batch, 3, "b");
        assert.deepEqual(before.chunk.map((event) => event.content.body), ["burst 3", "burst 2", "burst 1"]);
    });

    await step("bob opens the picture and a thumbnail of it", async () => {
        await a.sendMessage(roomId, { msgtype: "m.image", body: "green.png", url: mxc, info: { mimetype: "image/png", w: 640, h: 480, size: picture.length } });
        await message(b, roomId, "green.png");
        const whole = await download(b, mxc);
        assert.deepEqual([whole.status, whole.type, whole.body.equals(picture)], [200, "image/png", true]);
        const small = await download(b, mxc, 64, 64, "scale");
        assert.equal(small.status, 200);
        assert.match(small.type, /^image\//);
        const anonymous = await fetch(b.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true));
        assert.equal(anonymous.status, 401, "media needs a token");
    });

    await step("power levels hold; kick, ban, unban", async () => {
        await refused(b.setRoomTopic(roomId, "bob's topic"), "M_FORBIDDEN", 403);
        await a.setPowerLevel(roomId, bob.id, 50);
        await until("bob has 50", () => b.getRoom(roomId).getMember(bob.id).powerLevel === 50);
        await b.setRoomTopic(roomId, "bob's topic");
        await until("alice sees the topic", () =>
            a.getRoom(roomId).currentState.getStateEvents("m.room.topic", "")?.getContent().topic === "bob's topic",
        );
        await a.kick(roomId, bob.id, "out");
        await room(b, roomId, "leave");
        await b.joinRoom(roomId);
        await room(b, roomId);
        await a.ban(roomId, bob.id, "and stay out");
        await room(b, roomId, "ban");
        await refused(b.joinRoom(roomId), "M_FORBIDDEN", 403);
        await a.unban(roomId, bob.id);
        await until("bob may come in again", () => b.joinRoom(roomId)); // his server may hear of it later
        await room(b, roomId);
        await b.leave(roomId);
        await refused(b.sendMessage(roomId, text("from outside")), "M_FORBIDDEN", 403);
    });

    await step("the user directory finds who shares a room", async () => {
        const { room_id: id } = await a.createRoom({ preset: "private_chat", invite: [bob.id] });
        await room(b, id, "invite");
        await b.joinRoom(id);
        await b.setDisplayName(`Bob ${nonce}`);
        const member = () => a.getRoom(id)?.getMember(bob.id);
        await until("alice sees bob's new name", () => member()?.name === `Bob ${nonce}`);
        if (bob.url) return; // the directory holds the people of the same deployment
        await until("alice finds bob", async () => {
            const { results } = await a.searchUserDirectory({ term: `Bob ${nonce}`, limit: 5 });
            return results.some((entry) => entry.user_id === bob.id);
        });
    });

    await step("refresh tokens", async () => {
        const anonymous = sdk.createClient({ baseUrl: b.getHomeserverUrl() });
        const session = await anonymous.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: bob.id },
            password: bob.password,
            refresh_token: true,
        });
        assert.ok(session.refresh_token && session.expires_in_ms > 0);
        const next = await anonymous.refreshToken(session.refresh_token);
        assert.notEqual(next.access_token, session.access_token);
        const client = sdk.createClient({ baseUrl: b.getHomeserverUrl(), userId: bob.id, accessToken: next.access_token });
        assert.equal((await client.whoami()).device_id, session.device_id);
        await client.logout(true);
        await refused(anonymous.refreshToken(next.refresh_token ?? session.refresh_token), "M_UNKNOWN_TOKEN", 401);
    });

    await step("bob changes his password", async () => {
        const changed = { ...bob, password: `${bob.password}-${nonce}` };
        await withPassword(bob)((auth) => b.setPassword(auth ?? undefined, changed.password, false));
        await refused(login(bob, "none"), "M_FORBIDDEN", 403);
        const again = await login(changed, "bob after");
        await withPassword(changed)((auth) => again.setPassword(auth ?? undefined, bob.password, false));
        await again.logout(true);
        assert.equal((await b.whoami()).user_id, bob.id, "logout_devices false keeps the other devices");
    });

    await step("logout", async () => {
        await b.logout(true);
        await refused(b.whoami(), "M_UNKNOWN_TOKEN", 401);
        await a.logout(true);
    });
});
