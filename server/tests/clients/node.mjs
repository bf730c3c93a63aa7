// `@stream-io/node-sdk`, with the server's token; and what is the service's own: audio, raw connections, interim captions.
//
// In: see `lib/host.mjs`. Out: a line a check; exits with 1 where one failed.

import { StreamClient } from '@stream-io/node-sdk';
import { Talk, Watcher, api_key, base, has_more_speech, now_s, offline, recorder, request, samples, say, secret, token, user_token }
  from './lib/host.mjs';
import { combinations, fragments, moved, named, nanos, run, sleep, spoken, until } from './lib/expect.mjs';

const record = recorder('node');
const client = new StreamClient(api_key, secret, { basePath: base });
const stamp = Date.now().toString(36);

// What the client sends and gets goes through `fetch`.
const fetched = globalThis.fetch;
globalThis.fetch = async (url, options) => {
  const answer = await fetched(url, options);
  const { pathname } = new URL(url);
  if (options?.headers?.['X-Stream-Client']) {
    const content_type = answer.headers.get('content-type') ?? '';
    const text = await answer.clone().text();
    const body = content_type.includes('json') ? JSON.parse(text) : text.slice(0, 300);
    record({ kind: 'answer', method: options.method, path: pathname, status: answer.status, content_type, body });
  }
  return answer;
};

/** A call of one's own with its host's connection. */
const with_call = (name, { type = 'default', data = {}, interim = false } = {}, use) => async (check) => {
  const user_id = `node-${name}-${stamp}`;
  await client.upsertUsers([{ id: user_id, name }]);
  const call = client.video.call(type, `${user_id}-call`);
  const { created } = await call.getOrCreate({ data: { created_by_id: user_id, ...data } });
  check.equal('a call of its own', true, created);
  const watcher = await Watcher.open(user_id, { interim, record: interim ? undefined : record });
  await watcher.watch(type, call.id);
  try {
    await use(check, { call, user_id, watcher });
  } finally {
    watcher.close();
  }
};

const came = (watcher, type, count = 1, ms) => until(`${type}, ${count} times`, () => watcher.of(type).length >= count, ms);
const captions = (watcher) => watcher.of('call.closed_caption').map((event) => event.closed_caption);
const quick = { session: { inactivity_timeout_seconds: 1 } };

const processes = async (call) => {
  const { call: now } = await call.get();
  return { transcription: now.transcribing, captions: now.captioning };
};

const users = async (check) => {
  const [ann, bob] = [`node-ann-${stamp}`, `node-bob-${stamp}`];
  const { users } = await client.upsertUsers([
    { id: ann, name: 'Ann', role: 'admin', custom: { team: 'red' }, image: 'http://127.0.0.1/ann.png' }, { id: bob },
  ]);
  check.equal('users are made', [['admin', 'Ann'], ['user', undefined]], [ann, bob].map((id) => [users[id].role, users[id].name]));
  check.that('their time is a time', Math.abs(Date.now() - users[ann].created_at) < 60_000, String(users[ann].created_at));
  const partial = await client.updateUsersPartial({ users: [{ id: ann, set: { name: 'Anna', shoe: 40 }, unset: ['team'] }] });
  check.equal('and changed in part', ['Anna', { shoe: 40 }], [partial.users[ann].name, partial.users[ann].custom]);
  const found = await client.queryUsers({ payload: { filter_conditions: { id: { $in: [ann, bob] } }, sort: [{ field: 'id', direction: -1 }] } });
  check.equal('and found', [bob, ann], found.users.map((user) => user.id));
  const page = await client.queryUsers({ payload: { filter_conditions: { id: { $in: [ann, bob] } }, limit: 1, offset: 1, sort: [{ field: 'id' }] } });
  check.equal('page by page', [bob], page.users.map((user) => user.id));
  await check.refused('who is not there cannot be changed', { status: 404, code: 16 },
    client.updateUsersPartial({ users: [{ id: 'nobody', set: { name: 'x' } }] }));
};

const call_types = async (check) => {
  const role = `node-role-${stamp}`;
  check.equal('a role is made', [role, true], (({ role: { name, custom } }) => [name, custom])(await client.createRole({ name: role })));
  check.that('and listed', (await client.listRoles()).roles.some((one) => one.name === role), role);
  check.that('what may be granted', (await client.listPermissions()).permissions.some((one) => one.id === 'end-call'), '');
  const name = `node-type-${stamp}`;
  const { call_types: before } = await client.video.listCallTypes();
  const known = ['audio_room', 'default', 'development', 'livestream'];
  check.equal('four call types are there from the start', known, known.filter((one) => before[one]?.name === one));
  const settings = { transcription: { mode: 'auto-on', language: 'fr' }, ring: { auto_cancel_timeout_ms: 5000, incoming_call_timeout_ms: 5000 } };
  const created = await client.video.createCallType({ name, settings, grants: { user: ['read-call', 'StartTranscription'] } });
  check.equal('one is made', [name, 'auto-on', 'fr'], [created.name, created.settings.transcription.mode, created.settings.transcription.language]);
  check.equal('what the server does not act on is kept', 5000, created.settings.ring.auto_cancel_timeout_ms);
  check.equal('its grants', ['read-call', 'start-transcription-call'], [...created.grants.user].sort());
  const updated = await client.video.updateCallType({ name, settings: { transcription: { closed_caption_mode: 'disabled', mode: 'available' } } });
  const { mode, closed_caption_mode, language } = updated.settings.transcription;
  check.equal('it is changed leaf by leaf', ['available', 'disabled', 'fr'], [mode, closed_caption_mode, language]);
  check.equal('and its grants stay', ['read-call', 'start-transcription-call'], [...updated.grants.user].sort());
  const got = await client.video.getCallType({ name });
  check.equal('it is got as it is', [updated.settings, updated.grants], [got.settings, got.grants]);
  await check.refused('it is not made twice', { status: 400, code: 4 }, client.video.createCallType({ name }));
  for (const [bad, ...parts] of [
    [{ speech_segment_config: { silence_duration_ms: 299 } }, 'silence_duration_ms', '299', '300', '2000'],
    [{ speech_segment_config: { max_speech_caption_ms: 10_001 } }, 'max_speech_caption_ms', '10001', '5000', '10000'],
    [{ language: 'xx' }, 'language', 'xx'],
    [{ mode: 'sometimes' }, 'mode', 'sometimes', 'auto-on'],
    [{ translation: { enabled: true, languages: ['fr'] } }, 'languages', 'English only'],
  ]) {
    const why = await check.refused(`${JSON.stringify(bad)} makes no sense`, { status: 400, code: 4 },
      client.video.updateCallType({ name, settings: { transcription: bad } }));
    check.equal('the refusal says why', parts, parts.filter((part) => why.includes(part)));
  }
  const { duration } = await client.video.deleteCallType({ name });
  check.that('it is deleted', duration, duration);
  await check.refused('and gone', { status: 404, code: 16 }, client.video.getCallType({ name }));
  await check.refused('twice it cannot be', { status: 404, code: 16 }, client.video.deleteCallType({ name }));
};

const calls = with_call('calls', { data: { custom: { topic: 'node' }, team: 'red' } }, async (check, { call, user_id, watcher }) => {
  const bob = `${user_id}-bob`;
  await client.upsertUsers([{ id: bob }]);
  await check.refused('a server has to say who makes a call', { status: 400, code: 4, message: 'created_by_id' },
    client.video.call('default', `${user_id}-other`).getOrCreate());
  const got = await call.get();
  check.equal('it is got as it was made', [{ topic: 'node' }, 'red', user_id], [got.call.custom, got.call.team, got.call.created_by.id]);
  // Whole seconds: the client keeps nanoseconds as a float.
  const starts_at = new Date((now_s() + 3600) * 1000);
  const updated = await call.update({ custom: { topic: 'rain' }, starts_at });
  check.equal('it is changed', ['rain', starts_at.toISOString()], [updated.call.custom.topic, updated.call.starts_at.toISOString()]);
  const members = await call.updateCallMembers({ update_members: [{ user_id: bob, role: 'admin', custom: { seat: 2 } }] });
  check.equal('a member is added', [[bob, 'admin', 2]], members.members.map((one) => [one.user_id, one.role, one.custom.seat]));
  const found = await call.queryMembers({ limit: 5 });
  check.equal('and found', [bob], found.members.map((one) => one.user_id));
  await call.updateCallMembers({ remove_members: [bob] });
  check.equal('and removed', [], (await call.queryMembers()).members);
  const mine = await client.video.queryCalls({ filter_conditions: { created_by_user_id: user_id }, limit: 5 });
  check.equal('it is found by who made it', [call.cid], mine.calls.map((one) => one.call.cid));
  await call.updateUserPermissions({ user_id: bob, grant_permissions: ['ListTranscriptions'], revoke_permissions: ['join-call'] });
  const theirs = await request('GET', `/video/call/default/${call.id}`, { as: user_token(bob), query: { user_id: bob } });
  check.equal('permissions are changed', [true, false],
    ['list-transcriptions', 'join-call'].map((one) => theirs.own_capabilities.includes(one)));
  const report = await client.video.reportClientCallEvent({ events: [{ stage: 'CoordinatorWS', user_id: bob }] });
  check.that('reports are taken', report.duration, report);
  await call.delete();
  await came(watcher, 'call.deleted');
  check.ok('it is deleted, and that is told');
  await check.refused('and gone', { status: 404, code: 16 }, call.get());
  await check.refused('twice it cannot be', { status: 404, code: 16 }, call.delete());
});

const start_and_stop = with_call('combinations', {}, async (check, { call }) => {
  const make = {
    start: {
      transcription: (both) => call.startTranscription(both ? { enable_closed_captions: true } : undefined),
      captions: (both) => call.startClosedCaptions(both ? { enable_transcription: true } : undefined),
    },
    stop: {
      transcription: (both) => call.stopTranscription(both ? { stop_closed_captions: true } : undefined),
      captions: (both) => call.stopClosedCaptions(both ? { stop_transcription: true } : undefined),
    },
  };
  let transcripts = 0;
  for (const { runs, request: { verb, process, with_other }, after, refused } of combinations()) {
    const now = await processes(call);
    for (const one of ['transcription', 'captions']) {
      if (now[one] !== runs[one]) await make[runs[one] ? 'start' : 'stop'][one](false);
    }
    if (now.transcription && !runs.transcription) transcripts += 1;
    if (runs.transcription && !after.transcription) transcripts += 1;
    const what = `${verb} ${process}${with_other ? ' and the other' : ''} while ${named(runs)} runs`;
    const made = () => make[verb][process](with_other);
    if (refused) await check.refused(what, { status: 400, code: 4 }, made);
    else check.that(what, (await made()).duration, 'no duration');
    check.equal(`${what}: then ${named(after)} runs`, after, await processes(call));
  }
  if ((await processes(call)).transcription) {
    await call.stopTranscription();
    transcripts += 1;
  }
  const list = async () => (await call.listTranscriptions()).transcriptions;
  await until('a file of each transcription', async () => (await list()).length === transcripts);
  check.ok(`one file of each of the ${transcripts} transcriptions`);
  const texts = await Promise.all((await list()).map(async ({ url }) => (await fetch(url)).text()));
  check.equal('all are empty: nobody spoke', '', texts.join(''));
});

// In float32, for once, and with the token in the first frame.
const finals = with_call('finals', { data: { settings_override: quick }, interim: true }, async (check, { call, user_id, watcher }) => {
  await call.startTranscription({ language: 'en', enable_closed_captions: true });
  const talk = await Talk.open('default', call.id, user_id, { token_in: 'frame', encoding: 'float32' });
  await talk.say('talk', { speed: 1 });
  await talk.close();
  await came(watcher, 'call.transcription_ready', 1, 30_000);
  const expected = offline('talk', 'en');
  const got = captions(watcher);
  check.equal('finals are what the engine says offline, and when', spoken(expected), spoken(got));
  check.equal('of whom', expected.map(() => [user_id, user_id, 'en', false]),
    got.map((one) => [one.speaker_id, one.user.id, one.language, one.translated]));
  const { transcriptions } = await call.listTranscriptions();
  const text = await (await fetch(transcriptions[0].url)).text();
  check.equal('the transcript too, byte for byte', moved(expected, user_id, got[0].start_time), text);
  const interims = watcher.of('call.closed_caption_interim');
  check.that('interim captions come to who asked for them', interims.length > 0, interims.length);
  const by_id = new Map();
  for (const one of interims) by_id.set(one.closed_caption.id, [...(by_id.get(one.closed_caption.id) ?? []), one]);
  const ids = got.map((one) => one.id);
  for (const [id, some] of by_id) {
    const revisions = some.map((event) => event.revision);
    check.equal('their revisions grow', [...revisions].sort((a, b) => a - b), revisions);
    const retracted = watcher.of('call.closed_caption_retracted').some((event) => event.id === id);
    check.that('their id is that of the final', ids.includes(id) || retracted, { id, ids });
  }
});

const language = (name, recording, while_french_ms) =>
  with_call(name, { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
    await call.startTranscription({ language: 'fr', enable_closed_captions: true });
    const talk = await Talk.open('default', call.id, user_id);
    const said = talk.say(recording, { speed: 1 });
    await sleep(while_french_ms);
    await call.update({ settings_override: { transcription: { language: 'en' } } });
    await said;
    await talk.close();
    await came(watcher, 'call.transcription_ready', 1, 30_000);
    const expected = [offline(recording, 'fr')[0], offline(recording, 'en')[1]];
    check.equal('French, then English: the text shows which', spoken(expected), spoken(captions(watcher)));
    check.equal('and the captions say so', ['fr', 'en'], captions(watcher).map((one) => one.language));
  });

const segments = with_call('segments', { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
  const config = { max_speech_caption_ms: 5000 };
  await check.refused('a caption too long', { status: 400, code: 4, message: 'max_speech_caption_ms' },
    call.startClosedCaptions({ speech_segment_config: { max_speech_caption_ms: 60_000 } }));
  await check.refused('a language that nobody knows', { status: 400, code: 4, message: 'tlh' }, call.startClosedCaptions({ language: 'tlh' }));
  check.equal('and nothing runs', { transcription: false, captions: false }, await processes(call));
  await call.startClosedCaptions({ speech_segment_config: config, language: 'en' });
  const talk = await Talk.open('default', call.id, user_id);
  await talk.say('long');
  await talk.close();
  await came(watcher, 'call.session_ended');
  check.equal('captions of at most 5 s', spoken(offline('long', 'en.5000')), spoken(captions(watcher)));
  const again = client.video.call('default', `${call.id}-again`);
  await again.getOrCreate({ data: { created_by_id: user_id, settings_override: quick } });
  await watcher.watch('default', again.id);
  await again.startClosedCaptions({ language: 'en' });
  watcher.events.length = 0;
  const more = await Talk.open('default', again.id, user_id);
  await more.say('long');
  await more.close();
  await came(watcher, 'call.session_ended');
  check.equal('without that, one of at most 9', spoken(offline('long', 'en')), spoken(captions(watcher)));
});

const levels = async (check) => {
  const name = `node-levels-${stamp}`;
  const user_id = `${name}-host`;
  await client.upsertUsers([{ id: user_id }]);
  await client.video.createCallType({ name, settings: { transcription: { mode: 'available', language: 'fr' } } });
  await Promise.all([
    ['of-the-type', 'fr', {}, undefined], ['of-the-call', 'en', { language: 'en' }, undefined],
    ['of-the-request', 'fr', { language: 'en' }, { language: 'fr' }],
  ].map(async ([level, expected, transcription, asked]) => {
    const call = client.video.call(name, `${name}-${level}`);
    await call.getOrCreate({ data: { created_by_id: user_id, settings_override: { ...quick, transcription } } });
    await call.startTranscription(asked);
    const talk = await Talk.open(name, call.id, user_id);
    await talk.say('fr');
    await talk.close();
    const list = async () => (await call.listTranscriptions()).transcriptions;
    const [one] = await until('a transcript', async () => (await list()).length && list());
    const text = await (await fetch(one.url)).text();
    const from = fragments(text)[0]?.start_time ?? '1970-01-01T00:00:00Z';
    check.equal(`the language ${level}: the text shows it`, moved(offline('fr', expected), user_id, from), text);
  }));
};

const translation = with_call('translation', { data: { settings_override: {
  ...quick, transcription: { language: 'fr', translation: { enabled: true, languages: ['en'] } },
} } }, async (check, { call, user_id, watcher }) => {
  await call.startTranscription({ enable_closed_captions: true });
  check.equal('the call says that it is translated', true, (await call.get()).call.translating);
  const talk = await Talk.open('default', call.id, user_id);
  let times = 0;
  // A translation is the first thing that overload drops: so up to three times.
  while (times < 3 && !captions(watcher).some((one) => one.translated)) {
    await talk.say('french', { speed: 1 });
    times += 1;
    await came(watcher, 'call.closed_caption', times);
    await until('a translation', () => captions(watcher).some((one) => one.translated), 2_000).catch(() => {});
  }
  await talk.close();
  await came(watcher, 'call.transcription_ready');
  const got = captions(watcher);
  const at = got.findIndex((one) => one.translated);
  check.that('a translation comes', at > 0, got);
  const [original, translated] = [got[at - 1], got[at]];
  const expected = offline('french', 'fr');
  check.equal('the original is what the engine says offline', expected[0].text, original.text);
  check.equal('the translation follows it', [['fr', false], ['en', true]],
    [original, translated].map((one) => [one.language, one.translated]));
  check.equal('a nanosecond later, so that clients show it', 1n, nanos(translated.start_time) - nanos(original.start_time));
  check.that('under an id of its own', original.id !== translated.id, got);
  // Its words depend on its place where the model is unsure.
  check.that('in English', /conf[eé]rence is now/i.test(translated.text), translated.text);
  const { transcriptions } = await call.listTranscriptions();
  const lines = fragments(await (await fetch(transcriptions[0].url)).text());
  check.equal('the transcript has originals alone', Array(times).fill(expected[0].text), lines.map((one) => one.text));
});

const detection = with_call('detection', { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
  await call.startClosedCaptions({ language: 'auto' });
  const talk = await Talk.open('default', call.id, user_id);
  await talk.say('french');
  await talk.close();
  await came(watcher, 'call.session_ended');
  check.equal('what is spoken is found out', ['fr'], captions(watcher).map((one) => one.language));
  check.equal('and said as offline', spoken(offline('french', 'auto')), spoken(captions(watcher)));
});

const modes = with_call('modes', { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
  const set = (transcription) => call.update({ settings_override: { transcription } });
  await set({ closed_caption_mode: 'disabled' });
  await check.refused('what is disabled is not started', { status: 400, code: 4, message: 'closed_caption_mode' }, call.startClosedCaptions());
  await check.refused('not with the other either', { status: 400, code: 4, message: 'closed_caption_mode' },
    call.startTranscription({ enable_closed_captions: true }));
  check.equal('which does not start then', { transcription: false, captions: false }, await processes(call));
  await call.startTranscription();
  await set({ mode: 'disabled' });
  await came(watcher, 'call.transcription_stopped');
  check.equal('what runs is stopped', { transcription: false, captions: false }, await processes(call));
  await came(watcher, 'call.transcription_ready');
  await came(watcher, 'call.session_ended', 1, 3_000).catch(() => {});
  await set({ mode: 'available', closed_caption_mode: 'available' });
  const talk = await Talk.open('default', call.id, user_id);
  await came(watcher, 'call.session_participant_joined');
  check.equal('what is available waits for a start', { transcription: false, captions: false }, await processes(call));
  await set({ closed_caption_mode: 'auto-on' });
  await came(watcher, 'call.closed_captions_started');
  check.ok('auto-on starts at once where somebody is there');
  await call.stopClosedCaptions();
  await came(watcher, 'call.closed_captions_stopped');
  const second = await Talk.open('default', call.id, `${user_id}-second`);
  await came(watcher, 'call.session_participant_joined', 2);
  check.equal('after an explicit stop not again', false, (await processes(call)).captions);
  await talk.close();
  await second.close();
  await came(watcher, 'call.session_ended');
  const third = await Talk.open('default', call.id, user_id);
  await came(watcher, 'call.closed_captions_started', 2);
  check.ok('but in the next session');
  await third.close();
  await came(watcher, 'call.session_ended', 2);
});

const elsewhere = with_call('elsewhere', { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
  const caption = {
    speaker_id: user_id, text: 'said “elsewhere”', language: 'en', service: 'another', user_id,
    start_time: '2027-01-15T10:00:00.25+02:00', end_time: new Date('2027-01-15T08:00:01Z'),
  };
  await check.refused('a caption from elsewhere where none run', { status: 400, code: 4 }, call.sendClosedCaption(caption));
  await call.startClosedCaptions({ enable_transcription: true });
  await call.sendClosedCaption(caption);
  await came(watcher, 'call.closed_caption');
  const got = captions(watcher)[0];
  check.equal('it is shown', [caption.text, user_id, 'another', false], [got.text, got.speaker_id, got.service, got.translated]);
  check.equal('its time, in UTC', ['2027-01-15T08:00:00.250000000Z', '2027-01-15T08:00:01.000000000Z'], [got.start_time, got.end_time]);
  await call.stopClosedCaptions({ stop_transcription: true });
  await came(watcher, 'call.transcription_ready');
  const { transcriptions } = await call.listTranscriptions();
  const [fragment] = fragments(await (await fetch(transcriptions[0].url)).text());
  check.equal('it is in the transcript', [caption.text, '2027-01-15T08:00:00.250000000Z'], [fragment.text, fragment.start_time]);
});

const transcripts = with_call('transcripts', { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
  for (const count of [1, 2]) {
    await call.startTranscription();
    const talk = await Talk.open('default', call.id, user_id);
    await talk.say('short');
    await talk.close();
    await came(watcher, 'call.transcription_ready', count);
  }
  const { transcriptions } = await call.listTranscriptions();
  const ready = watcher.of('call.transcription_ready').map((event) => event.call_transcription);
  check.equal('two sessions have a transcript each', ready.map((one) => [one.session_id, one.filename]).sort(),
    transcriptions.map((one) => [one.session_id, one.filename]).sort());
  check.equal('under names of their own', 2, new Set(transcriptions.map((one) => one.filename)).size);
  const expected = offline('short', 'en').map((one) => one.text);
  for (const { url } of transcriptions) {
    const answer = await fetch(url);
    check.equal('each can be fetched without a token', expected, fragments(await answer.text()).map((one) => one.text));
  }
  const forged = new URL(transcriptions[0].url);
  const last = forged.href.at(-1) === 'a' ? 'b' : 'a';
  const answer = await fetch(`${forged.href.slice(0, -1)}${last}`);
  check.that('but not under another signature', answer.status >= 400 && answer.status < 500, answer.status);
  check.that('which is an error of the clients\' format', Number.isInteger((await answer.json()).code), answer.status);
  const [{ session_id: session, filename }, kept] = transcriptions;
  await check.refused('a file that is not there', { status: 404, code: 16 },
    client.video.deleteTranscription({ type: 'default', id: call.id, session, filename: 'none.jsonl' }));
  await check.refused('or of another session', { status: 404, code: 16 },
    client.video.deleteTranscription({ type: 'default', id: call.id, session: 'none', filename }));
  const { duration } = await call.deleteTranscription({ session, filename });
  check.that('one is deleted', duration, duration);
  check.equal('the other is left', [kept.filename], (await call.listTranscriptions()).transcriptions.map((one) => one.filename));
  const gone = await fetch(transcriptions[0].url);
  check.that('what is deleted cannot be fetched', gone.status === 404, gone.status);
  await check.refused('nor deleted again', { status: 404, code: 16 }, call.deleteTranscription({ session, filename }));
});

const audio = with_call('audio', { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
  const open = (user, options) => Talk.open('default', call.id, user, options);
  await check.refused('audio with somebody else\'s token', { status: 401, code: 5 }, open(user_id, { as: user_token('nobody') }));
  await check.refused('audio with an expired token', { status: 401, code: 40 },
    open(user_id, { as: user_token(user_id, { exp: now_s() - 60 }) }));
  await check.refused('audio in a call that is not there', { status: 404, code: 16 },
    Talk.open('default', 'nowhere', user_id));
  await call.updateUserPermissions({ user_id: `${user_id}-mute`, revoke_permissions: ['send-audio'] });
  await check.refused('audio without the capability', { status: 403, code: 17, message: 'send-audio' }, open(`${user_id}-mute`));
  await check.refused('a server is nobody', { status: 403, code: 17 }, open(user_id, { as: token({ server: true }) }));

  await call.startClosedCaptions({ language: 'en' });
  const first = await open(user_id);
  await came(watcher, 'call.session_participant_joined');
  await first.send(samples('short'));
  first.command('flush');
  await came(watcher, 'call.closed_caption');
  check.equal('a flush ends the caption', offline('short', 'en').map((one) => one.text), captions(watcher).map((one) => one.text));
  const second = await open(user_id);
  await until('the first connection\'s end', () => first.closed);
  check.equal('a second connection replaces the first, and nobody left', 0, watcher.of('call.session_participant_left').length);
  const at = '2027-01-15T08:00:00.000000001Z';
  second.socket.send(JSON.stringify({ type: 'time', at }));
  await second.say('fr-en');
  await came(watcher, 'call.closed_caption', 3);
  // Not to the nanosecond: what was heard before decides where the first caption begins.
  const out_ms = offline('fr-en', 'en').map(({ start_time }, i) =>
    Math.abs(Number(nanos(captions(watcher)[i + 1].start_time) - nanos(start_time) - nanos(at))) / 1e6);
  check.that('a time frame dates what follows', out_ms.every((ms) => ms < 200), out_ms);
  second.command('mute');
  await second.say('short');
  await second.silence(1000);
  const { call: now } = await call.get();
  check.equal('who is there', [user_id], now.session.participants.map((one) => one.user.id));
  await second.close();
  await came(watcher, 'call.session_ended');
  const short = await open(user_id, { as: user_token(user_id, { exp: now_s() + 2 }) });
  await until('the end of a connection whose token expires', () => short.closed);
  check.equal('a token that expires ends the audio', 4001, short.closed.code);
  check.equal('and gone; what they said while muted was not heard', 3, captions(watcher).length);
});

const connections = with_call('connections', {}, async (check, { call, user_id }) => {
  const error = async (what, code, options) => {
    const watcher = await Watcher.open(user_id, { record, ...options });
    const [event] = watcher.events;
    check.equal(what, ['connection.error', code, undefined], [event?.type, event?.error?.code, event?.code]);
    watcher.close();
  };
  await error('an expired token', 40, { as: user_token(user_id, { exp: now_s() - 60 }) });
  await error('one of tomorrow', 41, { as: user_token(user_id, { nbf: now_s() + 86_400 }) });
  await error('one issued tomorrow', 42, { as: user_token(user_id, { iat: now_s() + 86_400 }) });
  await error('one that somebody else signed', 43, { as: token({ user_id }, 'another secret') });
  await error('one that is none', 5, { as: 'rubbish' });
  await error('somebody else\'s', 5, { as: user_token('nobody') });
  const rubbish = await Watcher.open(user_id, { first: 'rubbish' });
  check.that('a first frame that is no JSON is refused', rubbish.events[0]?.type === 'connection.error' || rubbish.closed, rubbish.events);
  rubbish.close();
  const plain = await Watcher.open(user_id, { record });
  check.equal('connection.ok has who I am', [user_id, true], [plain.events[0].me?.id, Boolean(plain.connection_id)]);
  plain.socket.send(JSON.stringify([{ type: 'health.check', client_id: 'x' }]));
  await until('an answer to a health check', () => plain.of('health.check').length);
  check.equal('a health check is answered', plain.connection_id, plain.of('health.check')[0].connection_id);
  await plain.watch('default', call.id);
  await call.update({ custom: { a: 1 } });
  await until('call.updated', () => plain.of('call.updated').length);
  const [updated] = plain.of('call.updated');
  check.equal('what is watched is told', [{ a: 1 }, call.cid], [updated.call.custom, updated.call_cid]);
  plain.close();
});

const served = new Set([
  'getCall', 'updateCall', 'getOrCreateCall', 'sendClosedCaption', 'deleteCall', 'endCall', 'updateCallMembers',
  'startClosedCaptions', 'startTranscription', 'stopClosedCaptions', 'stopTranscription', 'listTranscriptions',
  'updateUserPermissions', 'deleteTranscription', 'reportClientCallEvent', 'queryCalls', 'queryCallMembers', 'listCallTypes',
  'createCallType', 'deleteCallType', 'getCallType', 'updateCallType', 'queryUsers', 'updateUsersPartial', 'updateUsers',
  'listRoles', 'createRole', 'listPermissions', 'getApp', 'updateApp', 'checkSQS', 'listExternalStorage', 'createExternalStorage',
  'updateExternalStorage', 'deleteExternalStorage', 'checkExternalStorage',
]);

const app_and_storages = async (check) => {
  const webhook_url = 'https://hooks.example.org/node';
  await client.updateApp({ webhook_url, webhook_events: ['call.deleted'], enable_hook_payload_compression: true });
  const { app } = await client.getApp();
  check.equal('a webhook is set', [webhook_url, ['call.deleted'], true], [app.webhook_url, app.webhook_events, app.enable_hook_payload_compression]);
  await client.updateApp({ webhook_url: '', enable_hook_payload_compression: false });
  check.equal('and taken back', '', (await client.getApp()).app.webhook_url);
  const name = `node-storage-${Date.now()}`;
  const azure_blob = { abs_account_name: 'captions', abs_client_id: 'id', abs_client_secret: 'unheard of', abs_tenant_id: 'tenant' };
  const storage = { bucket: 'captions', storage_type: 'abs', path: '', azure_blob };
  await client.createExternalStorage({ name, ...storage });
  const listed = async () => (await client.listExternalStorage()).external_storages[name];
  const { duration: _, ...made } = await listed();
  check.equal('a storage is made and listed, without its secret', { name, bucket: 'captions', path: '', type: 'abs' }, made);
  await client.updateExternalStorage({ name, ...storage, path: 'other' });
  check.equal('and changed', 'other', (await listed()).path);
  await check.refused('nobody checks one that is not there', { status: 404, code: 16 }, client.checkExternalStorage({ name: 'none' }));
  await client.deleteExternalStorage({ name });
  check.equal('and deleted', undefined, await listed());
  const checked = await client.checkSQS({ sqs_url: 'http://127.0.0.1:9/q' }).catch((error) => ({ status: 'error', error: error.message }));
  check.equal('a queue that nobody reaches', 'error', checked.status);
};

const offered = async (check) => {
  // Whatever field is asked for, it says `none`; so each of the client's methods makes a request.
  const anything = new Proxy({}, { get: (_, name) => (typeof name === 'string' ? 'none' : undefined) });
  const methods = [];
  for (const [where, api] of Object.entries({ common: client, video: client.video, chat: client.chat, feeds: client.feeds, moderation: client.moderation })) {
    // The generated class is the one whose methods are on the prototype, under the client's own.
    const generated = Object.getPrototypeOf(Object.getPrototypeOf(api));
    for (const name of Object.getOwnPropertyNames(generated)) {
      if (name === 'constructor' || served.has(name)) continue;
      methods.push([`${where}.${name}`, () => generated[name].call(api, anything)]);
    }
  }
  check.that('the client offers a lot', methods.length > 200, methods.length);
  for (let at = 0; at < methods.length; at += 10) {
    await Promise.all(methods.slice(at, at + 10).map(([name, request]) => check.not_offered(name, request)));
  }
  check.ok(`${methods.length} operations that the client offers and the server does not have are answered with a 4xx`);
};

const end = with_call('end', { data: { settings_override: quick } }, async (check, { call, user_id, watcher }) => {
  await call.startTranscription();
  const { duration } = await call.end();
  check.that('it is ended', duration, duration);
  await came(watcher, 'call.transcription_ready');
  const types = watcher.of().map((event) => event.type);
  check.equal('in the order of the events', ['call.session_started', 'call.transcription_started', 'call.ended', 'call.session_ended', 'call.transcription_ready'], types);
  await check.refused('nothing starts any more', { status: 400, code: 4, message: 'ended' }, call.startClosedCaptions());
  const stranger = `${user_id}-stranger`;
  await check.refused('audio needs a capability more', { status: 403, code: 17, message: 'join-ended-call' },
    Talk.open('default', call.id, stranger));
  await call.updateUserPermissions({ user_id: stranger, grant_permissions: ['join-ended-call'] });
  const talk = await Talk.open('default', call.id, stranger);
  check.ok('with which it is taken');
  await talk.close();
});

const tokens = with_call('tokens', {}, async (check, { call, user_id }) => {
  const get = (as, user = user_id) => request('GET', `/video/call/default/${call.id}`, { as, query: { user_id: user } });
  const other = `${user_id}-other`;
  const call_token = client.generateCallToken({ user_id: other, role: 'host', call_cids: [call.cid] });
  const granted = await get(call_token, other);
  check.that('a call\'s token grants its role there', granted.own_capabilities.includes('end-call'), granted.own_capabilities);
  const plain = await get(client.generateUserToken({ user_id: other }), other);
  check.equal('a user\'s token does not', false, plain.own_capabilities.includes('end-call'));
  const elsewhere = await get(client.generateCallToken({ user_id: other, role: 'host', call_cids: ['default:another'] }), other);
  check.equal('nor one of another call; but it restricts nothing', [false, true],
    ['end-call', 'join-call'].map((one) => elsewhere.own_capabilities.includes(one)));
  await get(client.createToken(user_id));
  await get(client.generatePermanentUserToken({ user_id }));
  check.ok('the older kinds are taken too');
  for (const [what, code, as] of [
    ['expired', 40, client.generateUserToken({ user_id, exp: now_s() - 60 })],
    ['issued in the future', 42, client.generateUserToken({ user_id, iat: now_s() + 3600 })],
    ['signed by another', 43, token({ user_id }, 'another')],
    ['a server\'s with a role', 5, token({ server: true, role: 'admin' })],
    ['no token', 5, 'rubbish'],
  ]) {
    await check.refused(`a token: ${what}`, { status: 401, code }, get(as));
  }
  const [signed] = [token({ user_id })];
  const none = `${Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url')}.${signed.split('.')[1]}.`;
  await check.refused('a token without a signature', { status: 401, code: 5 }, get(none));
  await check.refused('another API key', { status: 401, code: 2 },
    request('GET', `/video/call/default/${call.id}`, { query: { api_key: 'another' } }));
});

const list = [
  ['users', users], ['call types', call_types], ['calls and members', calls], ['start and stop', start_and_stop],
  ['finals', finals], ['language while somebody speaks', language('language', 'fr-en', 1200)], ['segments', segments],
  ['settings at three levels', levels],
  ['translation', translation], ['detection', detection],
  ['modes', modes], ['captions from elsewhere', elsewhere], ['transcripts', transcripts], ['audio', audio],
  ['connections', connections], ['tokens', tokens], ['end of a call', end], ['app and storages', app_and_storages],
  ['not offered', offered],
];
if (has_more_speech()) list.push(['language, longer', language('longer', 'more-fr-en', 2500)]);
else say('!!!! SKIPPED: node: language, longer: CUEWIRE_TEST_SPEECH is not set');

const only = process.argv.length > 2 ? process.argv.slice(2) : undefined;
process.exit((await run('node', list, say, { at_once: 4, only })) ? 1 : 0);
