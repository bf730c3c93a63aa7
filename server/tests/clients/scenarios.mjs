// What `@stream-io/video-client` does, in Node and in a browser alike.
//
// In: the client's package, and a host that has tokens, audio and what the engine makes of recordings offline. Out: scenarios.

import { combinations, fragments, moved, named, nanos, sleep, spoken, until } from './lib/expect.mjs';
import { not_offered } from './lib/offered.mjs';

/** Everything that the host of a call may; all of it is in `own_capabilities`. */
const HOST = ['start-transcription-call', 'stop-transcription-call', 'start-closed-captions-call', 'stop-closed-captions-call'];
const PLAIN_TYPES = ['call.created', 'call.updated', 'call.member_added', 'call.permissions_updated'];

export const scenarios = (package_, host) => {
  const { StreamVideoClient } = package_;
  const { base, api_key, name: of } = host;
  const run = Date.now().toString(36);
  const connected = [];

  /** A client that is connected: `events` is what it got, `closes` how its sockets ended, `answers` what requests got. */
  const connect = async (user_id, { provider, tries, ...user } = {}) => {
    const got = { events: [], closes: [], answers: [], sockets: [] };
    class Recorded extends host.WebSocket {
      constructor(url) {
        super(url);
        got.sockets.push(this);
        this.addEventListener('close', ({ code }) => got.closes.push(code));
        this.addEventListener('message', ({ data }) => host.record({ kind: 'event', body: JSON.parse(data) }));
      }
    }
    const client = new StreamVideoClient(api_key, {
      baseURL: `${base}/video`, WebSocketImpl: Recorded, logger: () => {}, maxConnectUserRetries: tries, ...host.options,
    });
    const note = (answer) => {
      if (!answer?.config) return;
      const { pathname } = new URL(answer.config.url.replace(/^\//, `${base}/video/`));
      const noted = {
        kind: 'answer', method: answer.config.method.toUpperCase(), path: pathname, status: answer.status,
        content_type: String(answer.headers['content-type']), body: answer.data,
      };
      got.answers.push({ ...noted, auth: answer.config.headers['stream-auth-type'] });
      host.record(noted);
    };
    client.streamClient.axiosInstance.interceptors.response.use(
      (answer) => (note(answer), answer),
      (error) => (note(error.response), Promise.reject(error)),
    );
    client.on('all', (event) => got.events.push(event));
    await client.connectUser({ id: user_id, ...user }, provider ?? (() => host.token(user_id)));
    const one = { client, user_id, ...got };
    connected.push(one);
    return one;
  };

  const with_one = (user_id, use) => async (check) => {
    const id = `${of}-${user_id}-${run}`;
    const one = await connect(id);
    try {
      await use(check, one);
    } finally {
      await one.client.disconnectUser().catch(() => {});
    }
  };

  const of_call = (events, call) => events.filter((event) => event.call_cid === call.cid);
  const types = (events) => events.map((event) => event.type).filter((type) => !PLAIN_TYPES.includes(type));
  const captions = (events) => events.filter((event) => event.type === 'call.closed_caption').map((event) => event.closed_caption);
  const came = (one, call, type, ms) =>
    until(`${type} of ${call.cid}`, () => of_call(one.events, call).find((event) => event.type === type), ms);

  const processes = async (call) => {
    const { call: now } = await call.get();
    return { transcription: now.transcribing, captions: now.captioning };
  };

  const connection = with_one('connection', async (check, one) => {
    const { client, user_id, answers } = one;
    check.equal('the first answer is who I am', user_id, client.state.connectedUser?.id);
    check.that('with times as texts', nanos(client.state.connectedUser.created_at) > 0n, client.state.connectedUser);
    const reports = () => answers.filter((answer) => answer.path === '/video/call_client_event');
    await until('two reports of the connection', () => reports().length >= 2);
    check.equal('reports of the client are taken', [201, 201], reports().slice(0, 2).map(({ status }) => status));
    check.that('one of them before a user is there', reports().some(({ auth }) => auth === 'anonymous'), reports());

    const call = client.call('default', `${user_id}-call`);
    const created = await call.getOrCreate({ data: { custom: { topic: 'weather' }, starts_at: '2027-01-15T09:00:00.5+01:00' } });
    check.equal('a call that was not there is created', true, created.created);
    check.equal('its id', call.cid, created.call.cid);
    check.equal('its custom data', { topic: 'weather' }, created.call.custom);
    check.equal('its start, in UTC', nanos('2027-01-15T08:00:00.5Z'), nanos(created.call.starts_at));
    check.equal('whose it is', user_id, created.call.created_by.id);
    check.equal('it may be started and stopped by its host', HOST, HOST.filter((one) => created.own_capabilities.includes(one)));
    check.that('it was created now', Math.abs(Date.now() - call.state.createdAt) < 60_000, String(call.state.createdAt));
    const { transcription, audio, video } = call.state.settings;
    const { mode, closed_caption_mode, language } = transcription;
    check.equal('transcription is set to its defaults', ['available', 'available', 'en'], [mode, closed_caption_mode, language]);
    check.equal('its segments', { max_speech_caption_ms: 9000, silence_duration_ms: 700 }, transcription.speech_segment_config);
    check.equal('no device is opened', [false, false], [audio.mic_default_on, video.camera_default_on]);
    const again = await client.call('default', call.id).getOrCreate();
    check.equal('the second time it was there', [false, created.call.created_at], [again.created, again.call.created_at]);
    const got = await client.call('default', call.id).get();
    check.equal('and is got as it is', created.call, got.call);
    await check.refused('a call that is not there', { status: 404, code: 16 }, client.call('default', 'nowhere').get());
    await check.refused('an id with a dot in it', { status: 400, code: 4 }, client.call('default', 'a.b').getOrCreate());
    await check.refused('a call type that is not there', { status: 404, code: 16 }, client.call('nowhere', 'a').getOrCreate());
    const bad = { settings_override: { transcription: { speech_segment_config: { max_speech_caption_ms: 4999 } } } };
    const why = await check.refused('a caption too short', { status: 400, code: 4 },
      client.call('default', `${user_id}-bad`).getOrCreate({ data: bad }));
    for (const part of ['max_speech_caption_ms', '4999', '5000', '10000']) {
      check.that(`the refusal names ${part}`, why.includes(part), why);
    }
    await check.refused('and made no call', { status: 404, code: 16 }, client.call('default', `${user_id}-bad`).get());
  });

  const start_and_stop = with_one('combinations', async (check, { client, user_id }) => {
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate();
    const make = {
      start: {
        transcription: (both) => call.startTranscription(both ? { enable_closed_captions: true } : undefined),
        captions: (both) => call.startClosedCaptions(both ? { enable_transcription: true } : undefined),
      },
      stop: {
        transcription: () => call.stopTranscription(),
        captions: (both) => call.stopClosedCaptions(both ? { stop_transcription: true } : undefined),
      },
    };
    for (const { runs, request, after, refused } of combinations()) {
      const { verb, process, with_other } = request;
      // This client's stop of a transcription has no body.
      if (verb === 'stop' && process === 'transcription' && with_other) continue;
      const now = await processes(call);
      for (const one of ['transcription', 'captions']) {
        if (now[one] !== runs[one]) await make[runs[one] ? 'start' : 'stop'][one](false);
      }
      const what = `${verb} ${process}${with_other ? ' and the other' : ''} while ${named(runs)} runs`;
      const made = () => make[verb][process](with_other);
      if (refused) await check.refused(what, { status: 400, code: 4 }, made);
      else check.that(what, (await made()).duration, 'no duration');
      check.equal(`${what}: then ${named(after)} runs`, after, await processes(call));
    }
  });

  const quick = { session: { inactivity_timeout_seconds: 1 } };

  const auto_on = with_one('auto-on', async (check, one) => {
    const { client, user_id } = one;
    const call = client.call('default', `${user_id}-call`);
    const transcription = { mode: 'auto-on', closed_caption_mode: 'auto-on', language: 'en' };
    await call.getOrCreate({ data: { settings_override: { transcription, ...quick } } });
    check.equal('nothing runs before somebody is there', { transcription: false, captions: false }, await processes(call));
    const talk = await host.talk('default', call.id, user_id);
    await talk.say('en');
    await talk.close();
    await came(one, call, 'call.transcription_ready');
    const events = of_call(one.events, call);
    const expected = host.offline('en', 'en');
    check.equal('events come in their order', [
      'call.session_started', 'call.session_participant_joined', 'call.transcription_started', 'call.closed_captions_started',
      ...expected.map(() => 'call.closed_caption'),
      'call.session_participant_left', 'call.closed_captions_stopped', 'call.session_ended', 'call.transcription_ready',
    ], types(events));
    const last = events.find((event) => event.type === 'call.session_ended');
    check.equal('nothing runs in session_ended', [false, false], [last.call.transcribing, last.call.captioning]);
    check.equal('finals are what the engine says offline, and when', spoken(expected), spoken(captions(events)));
    check.equal('the client has none of the processes running', [false, false], [call.state.transcribing, call.state.captioning]);
    const sessions = new Set(events.filter((event) => event.session_id).map((event) => event.session_id));
    const ready = events.find((event) => event.type === 'call.transcription_ready');
    check.equal('all is of one session', [ready.call_transcription.session_id], [...sessions]);
    const egress = events.filter((event) => event.type.startsWith('call.transcription_')).map((event) => event.egress_id);
    check.equal('and of one run', 1, new Set(egress).size);
  });

  const explicit = with_one('explicit', async (check, one) => {
    const { client, user_id } = one;
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate({ data: { settings_override: quick } });
    await call.startTranscription({ language: 'en', enable_closed_captions: true });
    const talk = await host.talk('default', call.id, user_id);
    // The speech begins at once and goes on for five seconds.
    const said = talk.say('en', { speed: 1 });
    await sleep(2000);
    const { duration } = await call.stopClosedCaptions({ stop_transcription: true });
    check.that('a stop while somebody speaks answers', duration, duration);
    check.equal('at once nothing runs', { transcription: false, captions: false }, await processes(call));
    check.equal('and nothing is said of it before the caption is there', 0, captions(of_call(one.events, call)).length);
    await said;
    await came(one, call, 'call.transcription_ready');
    await talk.say('short');
    await talk.silence(1000);
    await talk.close();
    await came(one, call, 'call.session_ended');
    const expected = host.offline('en', 'en').slice(0, 1);
    const events = of_call(one.events, call);
    check.equal('events come in their order, the stops behind the last caption', [
      'call.session_started', 'call.transcription_started', 'call.closed_captions_started', 'call.session_participant_joined',
      'call.closed_caption',
      'call.closed_captions_stopped', 'call.transcription_stopped', 'call.transcription_ready',
      'call.session_participant_left', 'call.session_ended',
    ], types(events));
    check.equal('the open caption was not cut, and none came behind it', spoken(expected), spoken(captions(events)));
    const { transcriptions } = await call.listTranscriptions();
    check.equal('one transcript', 1, transcriptions.length);
    const text = await (await fetch(transcriptions[0].url)).text();
    const from = captions(events)[0].start_time;
    check.equal('it is what was said, byte for byte', moved(expected, user_id, from), text);
  });

  const levels = with_one('settings', async (check, one) => {
    const { client, user_id } = one;
    const type = `type-${of}-${run}`;
    const settings = { transcription: { mode: 'available', language: 'fr', speech_segment_config: { max_speech_caption_ms: 6000 } } };
    const grants = { user: ['create-call', 'read-call', 'join-call', 'send-audio'], host: [...HOST, 'update-call-settings'] };
    await host.server('POST', '/api/v2/video/calltypes', { name: type, settings, grants });
    const say = async (id, { override, request, language }) => {
      const call = client.call(type, `${user_id}-${id}`);
      const settings_override = { ...quick, ...(override ? { transcription: override } : {}) };
      const { call: created } = await call.getOrCreate({ data: { settings_override } });
      await call.startClosedCaptions(request);
      const talk = await host.talk(type, call.id, user_id);
      await talk.say('fr');
      await talk.close();
      await came(one, call, 'call.session_ended');
      const expected = spoken(host.offline('fr', language));
      const got = captions(of_call(one.events, call));
      check.equal(`${id}: the text is ${language}'s`, expected, spoken(got));
      check.equal(`${id}: captions say ${language}`, expected.map(() => language), got.map((caption) => caption.language));
      return created.settings.transcription;
    };
    const [by_type, by_call] = await Promise.all([
      say('of-the-type', { language: 'fr' }),
      say('of-the-call', { override: { language: 'en', speech_segment_config: { silence_duration_ms: 500 } }, language: 'en' }),
      say('of-the-request', { override: { language: 'en' }, request: { language: 'fr' }, language: 'fr' }),
    ]);
    check.equal('a call has its type\'s language', 'fr', by_type.language);
    check.equal('leaf by leaf', { max_speech_caption_ms: 6000, silence_duration_ms: 500 }, by_call.speech_segment_config);
    await host.server('PUT', `/api/v2/video/calltypes/${type}`, { settings: { transcription: { language: 'ru' } } });
    const { call } = await client.call(type, `${user_id}-of-the-type`).get();
    const { language, speech_segment_config } = call.settings.transcription;
    check.equal('a change of the type reaches its calls, and leaves the rest', ['ru', 6000],
      [language, speech_segment_config.max_speech_caption_ms]);
    const later = await client.call(type, `${user_id}-of-the-call`).get();
    check.equal('but not what a call has of its own', 'en', later.call.settings.transcription.language);
  });

  const language = with_one('language', async (check, one) => {
    const { client, user_id } = one;
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate({ data: { settings_override: { transcription: { language: 'fr' }, ...quick } } });
    await call.startTranscription({ enable_closed_captions: true });
    const talk = await host.talk('default', call.id, user_id);
    // French until 2.6 s, English from 3.6 s on.
    const said = talk.say('fr-en', { speed: 1 });
    await sleep(1200);
    await call.update({ settings_override: { transcription: { language: 'en' } } });
    await said;
    await talk.close();
    await came(one, call, 'call.transcription_ready');
    const [french, english] = [host.offline('fr-en', 'fr'), host.offline('fr-en', 'en')];
    const expected = [french[0], english[1]];
    const got = captions(of_call(one.events, call));
    check.equal('the caption that was open stays French, the next is English', ['fr', 'en'], got.map((caption) => caption.language));
    check.equal('the text shows which', spoken(expected), spoken(got));
    const { transcriptions } = await call.queryTranscriptions();
    const text = await (await fetch(transcriptions[0].url)).text();
    check.equal('in the transcript too, byte for byte', moved(expected, user_id, got[0].start_time), text);
  });

  const transcripts = with_one('transcripts', async (check, one) => {
    const { client, user_id } = one;
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate({ data: { settings_override: quick } });
    check.equal('none at first', [], (await call.listTranscriptions()).transcriptions);
    await call.startTranscription();
    const talk = await host.talk('default', call.id, user_id);
    await talk.say('talk');
    await talk.close();
    const { call_transcription: ready } = await came(one, call, 'call.transcription_ready', 30_000);
    const { transcriptions } = await call.listTranscriptions();
    check.equal('the list has what the event said, but for the signature',
      [ready.filename, ready.session_id, ready.start_time, ready.end_time],
      transcriptions.flatMap(({ filename, session_id, start_time, end_time }) => [filename, session_id, start_time, end_time]));
    const expected = host.offline('talk', 'en');
    for (const [where, url] of [['the event', ready.url], ['the list', transcriptions[0].url]]) {
      const answer = await fetch(url);
      const text = await answer.text();
      const got = fragments(text);
      check.equal(`the file of ${where} is what the engine says offline, byte for byte`,
        moved(expected, user_id, got[0]?.start_time ?? '1970-01-01T00:00:00Z'), text);
    }
    await check.refused('to delete it takes a server', { status: 403, code: 17 },
      call.deleteTranscription(ready.session_id, ready.filename));
    check.equal('and it is still there', 1, (await call.listTranscriptions()).transcriptions.length);
    await check.refused('to delete the call too', { status: 403, code: 17 }, call.delete());
  });

  const permissions = with_one('permissions', async (check, owner) => {
    const { client, user_id } = owner;
    const guest = await connect(`${user_id}-guest`);
    try {
      const id = `${user_id}-call`;
      const [mine, theirs] = [client.call('default', id), guest.client.call('default', id)];
      await mine.getOrCreate();
      await theirs.get();
      check.equal('somebody else may not start or stop', [], theirs.state.ownCapabilities.filter((one) => HOST.includes(one)));
      const refused = { status: 403, code: 17 };
      await check.refused('start transcription', { ...refused, message: 'start-transcription-call' }, theirs.startTranscription());
      await check.refused('start captions', { ...refused, message: 'start-closed-captions-call' }, theirs.startClosedCaptions());
      await check.refused('change settings', refused, theirs.update({ settings_override: { transcription: { language: 'fr' } } }));
      await check.refused('change data', refused, theirs.update({ custom: { a: 1 } }));
      await check.refused('change members', refused, theirs.updateCallMembers({ update_members: [{ user_id: guest.user_id }] }));
      await check.refused('change permissions', refused, theirs.grantPermissions(guest.user_id, HOST));
      await check.refused('end it', refused, theirs.endCall());
      await theirs.listTranscriptions();
      check.ok('list transcripts they may');

      await mine.grantPermissions(guest.user_id, ['start-transcription-call', 'StopTranscription']);
      const { user, own_capabilities } = await came(guest, theirs, 'call.permissions_updated');
      const granted = ['start-transcription-call', 'stop-transcription-call'];
      check.equal('what is granted is told, in either spelling', [guest.user_id, granted],
        [user.id, granted.filter((one) => own_capabilities.includes(one))]);
      await theirs.startTranscription();
      check.ok('and works');
      await check.refused('for both processes it needs both', { ...refused, message: 'stop-closed-captions-call' },
        theirs.stopClosedCaptions({ stop_transcription: true }));
      check.equal('nothing was changed', { transcription: true, captions: false }, await processes(mine));
      await theirs.stopTranscription();
      await check.refused('start both without both', { ...refused, message: 'start-closed-captions-call' },
        theirs.startTranscription({ enable_closed_captions: true }));
      check.equal('nothing was started', { transcription: false, captions: false }, await processes(mine));

      await mine.revokePermissions(guest.user_id, ['start-transcription-call', 'read-call']);
      await check.refused('what is revoked is refused', refused, theirs.startTranscription());
      await until('the socket\'s end', () => guest.closes.length);
      check.equal('who may no longer read loses the connection', 4001, guest.closes[0]);
      await until('another one', () => guest.events.filter((event) => event.type === 'connection.ok').length >= 2, 20_000);
      await check.refused('reading is refused', refused, theirs.get());
      guest.events.length = 0;
      await mine.update({ custom: { secret: true } });
      await came(owner, mine, 'call.updated');
      await sleep(500);
      check.equal('and no event comes', [], of_call(guest.events, theirs).map((event) => event.type));
    } finally {
      await guest.client.disconnectUser().catch(() => {});
    }
  });

  const data = with_one('data', async (check, one) => {
    const { client, user_id } = one;
    const [ann, bob] = [`${user_id}-ann`, `${user_id}-bob`];
    await host.server('POST', '/api/v2/users', { users: { [ann]: { id: ann, name: 'Ann' }, [bob]: { id: bob } } });
    const call = client.call('default', `${user_id}-call`);
    const members = [{ user_id: ann, role: 'admin', custom: { seat: 1 } }];
    const created = await call.getOrCreate({ data: { members, custom: { a: 1 } } });
    check.equal('its members', [[ann, 'admin', 1, 'Ann']],
      created.members.map((member) => [member.user_id, member.role, member.custom.seat, member.user.name]));
    const updated = await call.update({ custom: { b: 2 }, settings_override: { transcription: { language: 'de' } } });
    check.equal('custom data are replaced', { b: 2 }, updated.call.custom);
    const event = await came(one, call, 'call.updated');
    check.equal('it is told', [{ b: 2 }, 'de'], [event.call.custom, event.call.settings.transcription.language]);
    check.that('with what each role may', event.capabilities_by_role.host.includes('end-call'), event.capabilities_by_role);
    await call.updateCallMembers({ update_members: [{ user_id: bob }] });
    const added = await came(one, call, 'call.member_added');
    check.equal('a member is added', [bob], added.members.map((member) => member.user_id));
    await call.updateCallMembers({ update_members: [{ user_id: bob, role: 'admin' }] });
    const changed = await came(one, call, 'call.member_updated');
    check.equal('and changed', [[bob, 'admin']], changed.members.map((member) => [member.user_id, member.role]));
    const all = await call.queryMembers();
    check.equal('all are listed', [ann, bob], all.members.map((member) => member.user_id).sort());
    const first = await call.queryMembers({ limit: 1 });
    const second = await call.queryMembers({ limit: 1, next: first.next });
    check.equal('page by page', [ann, bob], [...first.members, ...second.members].map((member) => member.user_id).sort());
    await call.updateCallMembers({ remove_members: [bob] });
    const removed = await came(one, call, 'call.member_removed');
    check.equal('and removed', [bob], removed.members);
    check.equal('the client\'s state has one left', [ann], call.state.members.map((member) => member.user_id));
  });

  const query = with_one('query', async (check, one) => {
    const { client, user_id } = one;
    const create = (id, members = []) => host.server('POST', `/api/v2/video/call/default/${user_id}-${id}`,
      { data: { created_by_id: user_id, members: members.map((member) => ({ user_id: member })), custom: { topic: id } } });
    await create('invited', [user_id]);
    await until('call.created', () => one.events.some((event) => event.type === 'call.created'
      && event.call_cid === `default:${user_id}-invited`));
    check.ok('who is made a member is told of the call');
    const ids = ['a', 'b', 'c'];
    for (const id of ids) await create(id);
    const cids = ids.map((id) => `default:${user_id}-${id}`);
    const filter_conditions = { cid: { $in: cids } };
    const sort = [{ field: 'created_at', direction: -1 }];
    const pages = [];
    for (let next; pages.length < 5;) {
      const page = await client.queryCalls({ filter_conditions, sort, limit: 2, next });
      pages.push(page.calls.map((call) => call.cid));
      next = page.next;
      if (!next) break;
    }
    check.equal('pages, the last created first', [[cids[2], cids[1]], [cids[0]]], pages);
    const mine = await client.queryCalls({ filter_conditions: { created_by_user_id: user_id, 'custom.topic': 'b' } });
    check.equal('by who created it, and custom data', [cids[1]], mine.calls.map((call) => call.cid));
    await check.refused('by what cannot be asked for', { status: 400, code: 4 },
      client.queryCalls({ filter_conditions: { weather: 'rain' } }));
    const watched = await client.queryCalls({ filter_conditions, sort, limit: 1, watch: true });
    check.equal('one page of those that are watched', [cids[2]], watched.calls.map((call) => call.cid));
    for (const id of ids) await host.server('PATCH', `/api/v2/video/call/default/${user_id}-${id}`, { custom: { seen: id } });
    for (const cid of cids) await until(`call.updated of ${cid}`,
      () => one.events.some((event) => event.type === 'call.updated' && event.call_cid === cid));
    check.ok('all that match are watched, not one page');
  });

  const expiry = async (check) => {
    const user_id = `${of}-expiry-${run}`;
    let tokens = 0;
    const provider = async () => {
      tokens += 1;
      return tokens === 1 ? host.token(user_id, { lives_s: 4 }) : host.token(user_id);
    };
    const one = await connect(user_id, { provider });
    try {
      const call = one.client.call('default', `${user_id}-call`);
      await call.getOrCreate();
      const first = one.client.streamClient._getConnectionID();
      await until('the socket\'s end', () => one.closes.length, 15_000);
      check.equal('when the token expires, the socket is closed with 4001', 4001, one.closes[0]);
      await until('another connection', () => one.events.filter((event) => event.type === 'connection.ok').length >= 2, 20_000);
      check.equal('the client was told that it has expired', 40,
        one.events.find((event) => event.type === 'connection.error')?.error.code ?? 40);
      check.that('and fetched another token', tokens >= 2, tokens);
      check.that('the connection is another', one.client.streamClient._getConnectionID() !== first, first);
      const rewatch = () => one.answers.some((answer) => answer.path === '/video/calls' && answer.status < 300);
      await until('calls are watched again', rewatch, 10_000);
      await host.server('PATCH', `/api/v2/video/call/default/${call.id}`, { custom: { after: 'expiry' } });
      await came(one, call, 'call.updated');
      check.ok('and events come again');
    } finally {
      await one.client.disconnectUser().catch(() => {});
    }
    const late = await host.token(user_id, { lives_s: -60 });
    const refused = await connect(user_id, { provider: late, tries: 1 }).then(() => null, (error) => error);
    check.that('who has only an expired one is told 40', String(refused?.message).includes('"code":40'), refused?.message);
  };

  const reconnect = with_one('reconnect', async (check, one) => {
    const { client, user_id } = one;
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate();
    const first = client.streamClient._getConnectionID();
    host.cut(one);
    await until('another connection', () => {
      const id = client.streamClient._getConnectionID();
      return client.streamClient.wsConnection.isHealthy && id && id !== first;
    }, 20_000);
    const rewatch = () => one.answers.find((answer) => answer.path === '/video/calls');
    const answer = await until('calls are watched again', rewatch, 10_000);
    check.equal('what was watched is watched again', [call.cid], answer.body.calls.map(({ call: { cid } }) => cid));
    await host.server('PATCH', `/api/v2/video/call/default/${call.id}`, { custom: { after: 'reconnect' } });
    await came(one, call, 'call.updated');
    check.ok('and events come again');
    const path = `/call/default/${call.id}`;
    await check.refused('to watch under the old id', { status: 400, code: 46 },
      client.streamClient.get(path, { connection_id: first }));
    await client.streamClient.get(`${path}/transcriptions`, { connection_id: first });
    check.ok('but nothing else minds it');
    const other = await connect(`${user_id}-other`);
    await check.refused('another\'s connection', { status: 400, code: 46 },
      client.streamClient.get(path, { connection_id: other.client.streamClient._getConnectionID() }));
    await other.client.disconnectUser();
  });

  const health = with_one('health', async (check, one) => {
    const { client } = one;
    const answer = await until('an answer to the health check', () => one.events.find((event) => event.type === 'health.check'), 30_000);
    check.equal('silence is broken by a health check', client.streamClient._getConnectionID(), answer.connection_id);
    check.equal('and the connection lives', [], one.closes);
  });

  const end = with_one('end', async (check, one) => {
    const { client, user_id } = one;
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate({ data: { settings_override: quick } });
    await call.startClosedCaptions({ enable_transcription: true });
    const talk = await host.talk('default', call.id, user_id);
    await talk.say('short');
    // Who is sent away takes with them what the server has not read.
    await talk.heard();
    const { duration } = await call.endCall();
    check.that('an end answers', duration, duration);
    await came(one, call, 'call.transcription_ready');
    const events = of_call(one.events, call);
    check.equal('everybody leaves, and the session ends', [
      'call.session_started', 'call.closed_captions_started', 'call.transcription_started', 'call.session_participant_joined',
      'call.ended', 'call.closed_caption',
      'call.session_participant_left', 'call.closed_captions_stopped', 'call.session_ended', 'call.transcription_ready',
    ].sort(), types(events).sort());
    const at = (type) => types(events).indexOf(type);
    check.that('call.ended comes first', at('call.ended') < at('call.session_participant_left'), types(events));
    const order = ['call.session_participant_left', 'call.closed_captions_stopped', 'call.session_ended', 'call.transcription_ready'];
    check.equal('the rest in its order', order, types(events).slice(-4));
    check.equal('the caption that was open is finished', spoken(host.offline('short', 'en')), spoken(captions(events)));
    const by = events.find((event) => event.type === 'call.ended').user?.id;
    check.equal('who ended it', user_id, by);
    await talk.close();
    const { call: ended } = await call.get();
    check.that('the call says when', nanos(ended.ended_at) > 0n, ended.ended_at);
    await check.refused('nothing starts any more', { status: 400, code: 4 }, call.startTranscription());
    const late = host.talk('default', call.id, `${user_id}-late`);
    check.that('and somebody else may not join', await late.then(() => false, () => true), 'they may');
  });

  const on_screen = with_one('on-screen', async (check, one) => {
    const { client, user_id } = one;
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate({ data: { settings_override: quick } });
    await call.startClosedCaptions({ language: 'en' });
    await until('captions are on', () => call.state.captioning);
    check.ok('the client knows that captions run');
    const seen = [];
    const watching = call.state.closedCaptions$.subscribe((now) => seen.push(now.map((caption) => caption.text)));
    const talk = await host.talk('default', call.id, user_id);
    await talk.say('talk');
    const expected = host.offline('talk', 'en').map((fragment) => fragment.text);
    await until('all captions', () => captions(of_call(one.events, call)).length >= expected.length, 30_000);
    check.that('no more than two are shown', seen.every((now) => now.length <= 2), seen);
    check.equal('each is shown', expected, [...new Set(seen.flat())]);
    await until('an empty screen', () => call.state.closedCaptions.length === 0, 5_000);
    check.ok('and goes again');
    watching.unsubscribe();
    await talk.close();
  });

  const offered = with_one('not-offered', async (check, { client, user_id }) => {
    const call = client.call('default', `${user_id}-call`);
    await call.getOrCreate();
    const list = not_offered(client, call);
    for (const [name, request] of list) await check.not_offered(name, request);
    check.ok(`${list.length} operations that the client offers and the server does not have are answered with a 4xx`);
    await check.refused('a token that is signed by somebody else', { status: 401, code: 43 },
      client.streamClient.doAxiosRequest('get', `/call/default/${call.id}`, null,
        { headers: {}, config: { headers: { Authorization: await host.token(user_id, { forged: true }), 'stream-auth-type': 'jwt' } } }));
  });

  const list = [
    ['connection', connection], ['health check', health], ['start and stop', start_and_stop], ['auto-on', auto_on],
    ['explicit stop', explicit], ['settings at three levels', levels], ['language while somebody speaks', language],
    ['transcripts', transcripts], ['permissions', permissions], ['data and members', data], ['queries', query],
    ['token expiry', expiry], ['reconnect', reconnect], ['end of a call', end], ['captions on screen', on_screen],
    ['not offered', offered],
  ];

  /** Around a restart of the server: what is to be done before it, and the check behind it. */
  const restart = async () => {
    const user_id = `${of}-restart-${run}`;
    const one = await connect(user_id);
    const call = one.client.call('default', `${user_id}-call`);
    const session = { inactivity_timeout_seconds: 30 };
    await call.getOrCreate({ data: { settings_override: { session } } });
    await call.startTranscription({ language: 'en', enable_closed_captions: true });
    const talk = await host.talk('default', call.id, user_id);
    await talk.say('short');
    await talk.silence(1500);
    await came(one, call, 'call.closed_caption');
    const before = await call.get();
    return async (check) => {
      await until('another connection', () => one.events.filter((event) => event.type === 'connection.ok').length >= 2, 30_000);
      check.equal('the socket was closed with 1012', 1012, one.closes[0]);
      await until('calls are watched again', () => one.answers.some((answer) => answer.path === '/video/calls' && answer.status < 300), 15_000);
      const { call: after } = await call.get();
      check.equal('the call is as it was', [before.call.created_at, before.call.settings], [after.created_at, after.settings]);
      check.equal('its session too', before.call.current_session_id, after.current_session_id);
      check.equal('and both processes', [true, true], [after.transcribing, after.captioning]);
      const back = await host.talk('default', call.id, user_id);
      await back.say('short');
      await back.silence(1500);
      await until('captions again', () => captions(of_call(one.events, call)).length >= 2);
      check.ok('who comes back is heard');
      await call.stopTranscription();
      await came(one, call, 'call.transcription_ready');
      const { transcriptions } = await call.listTranscriptions();
      const text = await (await fetch(transcriptions[0].url)).text();
      const said = host.offline('short', 'en').map((fragment) => fragment.text);
      check.equal('one transcript has what was said before and behind', [...said, ...said], fragments(text).map((line) => line.text));
      await back.close();
      await one.client.disconnectUser();
    };
  };

  return { list, restart, connected };
};
