// Against `hansa demo`: people log in with nothing but their short name at the address of their organisation, who may talk
// to each other does so, and who may not is refused everywhere, with a reason and the id of the decision.
import assert from "node:assert/strict";
import { accounts, login, main, message, refused, room, step, text, until, url } from "./kit.mjs";

const globex = process.env.HANSA_BOB_URL;
const { password } = accounts.alice;
const person = (name, tenant, address) => ({ id: `@${name}:${tenant}`, user: name, password, url: address });
const anna = person("anna", "acme.localhost", url);
const ben = person("ben", "acme.localhost", url);
const carla = person("carla", "acme.localhost", url);
const dora = person("dora", "acme.localhost", url);
const erik = person("erik", "globex.localhost", globex);

/** A refusal by policy says why, in words, and by which decision. */
async function denied(promise, code) {
    const err = await refused(promise, "M_FORBIDDEN", 403);
    assert.ok(err.data["org.hansa.decision_id"], "the decision has an id");
    const codes = err.data["org.hansa.reasons"].map((reason) => reason.code);
    assert.ok(codes.includes(code), `reason ${code} is among ${codes}`);
}

await main("demo", async () => {
    await step("each organisation announces its own address", async () => {
        for (const address of [url, globex]) {
            const answer = await fetch(`${address}/.well-known/matrix/client`);
            assert.equal((await answer.json())["m.homeserver"].base_url.replace(/\/$/, ""), address);
        }
    });
    const a = await step("anna logs in at acme", () => login(anna, "anna"));
    const e = await step("erik logs in at globex", () => login(erik, "erik"));

    const roomId = await step("anna of research invites ben and erik", async () => {
        const { room_id: id } = await a.createRoom({ preset: "private_chat", name: "Alloys", invite: [ben.id, erik.id] });
        await room(e, id, "invite");
        return id;
    });
    await step("all three talk", async () => {
        const b = await login(ben, "ben");
        await e.joinRoom(roomId);
        await b.joinRoom(roomId);
        await room(e, roomId);
        await room(b, roomId);
        await a.sendMessage(roomId, text("tin is dear this year"));
        for (const reader of [b, e]) await message(reader, roomId, "tin is dear this year");
        await e.sendMessage(roomId, text("so is copper"));
        for (const reader of [a, b]) await message(reader, roomId, "so is copper");
        await b.logout(true);
    });

    const c = await step("carla of the closed pool logs in", () => login(carla, "carla"));
    await step("nobody invites carla, and carla invites nobody", async () => {
        await denied(a.invite(roomId, carla.id), "pools_apart");
        await denied(a.createRoom({ preset: "trusted_private_chat", is_direct: true, invite: [carla.id] }), "pools_apart");
        await denied(e.createRoom({ preset: "private_chat", invite: [carla.id] }), "no_agreement");
        await denied(c.createRoom({ preset: "private_chat", invite: [anna.id] }), "pools_apart");
        assert.equal(c.getRooms().length, 0, "carla heard of no room");
    });
    await step("nobody finds carla, and carla finds nobody", async () => {
        for (const [client, term, hidden] of [[a, "carla", carla], [e, "carla", carla], [c, "anna", anna], [c, "erik", erik]]) {
            const { results } = await client.searchUserDirectory({ term });
            assert.deepEqual(results.filter((entry) => entry.user_id === hidden.id), [], `${term} is not found`);
            await assert.rejects(client.getProfileInfo(hidden.id), (err) => [403, 404].includes(err.httpStatus));
        }
        const keys = await e.http.authedRequest("POST", "/keys/query", undefined, { device_keys: { [carla.id]: [] } });
        assert.deepEqual(Object.keys(keys.device_keys?.[carla.id] ?? {}), [], "no keys of carla");
    });
    await step("carla may write but not send files", async () => {
        const { room_id: id } = await c.createRoom({ preset: "private_chat", name: "Ledger" });
        await room(c, id);
        await c.sendMessage(id, text("to myself"));
        await message(c, id, "to myself");
        await denied(c.sendMessage(id, { msgtype: "m.file", body: "x.pdf", url: "mxc://acme.localhost/abc" }), "no_files");
    });
    await step("dora, whom no agreement covers, does not reach erik", async () => {
        const d = await login(dora, "dora");
        await denied(d.createRoom({ preset: "trusted_private_chat", is_direct: true, invite: [erik.id] }), "no_agreement");
        await denied(e.createRoom({ preset: "private_chat", invite: [dora.id] }), "no_agreement");
        await d.logout(true);
    });
    await step("nothing of this reached the others", async () => {
        await a.sendMessage(roomId, text("the last word"));
        await message(e, roomId, "the last word");
        await until("anna sees her two guests and nobody else", () => {
            const members = a.getRoom(roomId).getMembers().map((member) => member.userId);
            return members.length === 3 && !members.includes(carla.id);
        });
        assert.equal(e.getRooms().length, 1);
    });
});
