// What scripts in Node do beside their client: tokens, requests without a client, audio, raw connections, records.
//
// In: `CUEWIRE_URL`, `CUEWIRE_API_KEY`, `CUEWIRE_API_SECRET`, and `CLIENTS_WORK`, the folder that `run` has prepared: `speech/`
// holds samples and what the engine makes of them offline. Out: `records/CLIENT.jsonl`, a line an event or an answer.

import { createHmac } from 'node:crypto';
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import WebSocket from 'ws';
import { fragments, sleep, until } from './expect.mjs';

const env = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: start this with ./run`);
  return value;
};

export const base = env('CUEWIRE_URL');
export const api_key = env('CUEWIRE_API_KEY');
export const secret = env('CUEWIRE_API_SECRET');
const work = env('CLIENTS_WORK');

/** Samples of 16 bits at 16 kHz, mono. */
export const SAMPLE_RATE = 16_000;
/** Of 20 ms. */
const FRAME_BYTES = (SAMPLE_RATE / 50) * 2;

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A JSON Web Token. */
export const token = (claims, key = secret) => {
  const signed = `${base64url({ alg: 'HS256', typ: 'JWT' })}.${base64url(claims)}`;
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
};

export const now_s = () => Math.floor(Date.now() / 1000);

export const user_token = (user_id, claims = {}) => token({ user_id, iat: now_s() - 2, ...claims });

export const server_token = token({ server: true });

export const samples = (name) => readFileSync(join(work, 'speech', `${name}.pcm`));

/** What the engine makes of a recording offline, a fragment each. `how` is its language, and the longest caption where set. */
export const offline = (name, how) => fragments(readFileSync(join(work, 'speech', `${name}.${how}.jsonl`), 'utf8'));

/** Whether recordings beyond the repository's are there. */
export const has_more_speech = () => process.env.CLIENTS_MORE_SPEECH === '1';

/** Writes down what came, for the check against the clients' models. */
export const recorder = (client) => {
  const file = join(work, 'records', `${client}.jsonl`);
  mkdirSync(join(work, 'records'), { recursive: true });
  return (record) => appendFileSync(file, `${JSON.stringify({ client, ...record })}\n`);
};

export const say = (line) => process.stdout.write(`${line}\n`);

/** A request without a client. Throws what `Checks.refused` understands. */
export const request = async (method, path, { as = server_token, query = {}, body, headers = {} } = {}) => {
  const parameters = new URLSearchParams({ api_key, ...query });
  const answer = await fetch(`${base}${path}?${parameters}`, {
    method,
    headers: {
      ...(as ? { authorization: as, 'stream-auth-type': 'jwt' } : {}),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error(`${method} ${path}: expected JSON, got ${answer.status} ${text.slice(0, 200)}`);
  }
  if (!answer.ok) {
    throw Object.assign(new Error(data.message), { code: data.code, response: { status: answer.status, data } });
  }
  return data;
};

/** How many speak faster than people do at a time, of all scripts: what the engine cannot keep up with it sheds. */
const FAST_TALKERS = 1;

const is_alive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** Waits for a turn to speak fast; gives what ends it. */
const turn = async () => {
  for (;;) {
    for (let slot = 0; slot < FAST_TALKERS; slot += 1) {
      const file = join(work, `talking-${slot}`);
      try {
        writeFileSync(file, String(process.pid), { flag: 'wx' });
        return () => rmSync(file, { force: true });
      } catch {
        let owner = 0;
        try {
          owner = Number(readFileSync(file, 'utf8'));
        } catch { /* It is over. */ }
        // A script that was killed speaks no more.
        if (owner && !is_alive(owner)) rmSync(file, { force: true });
      }
    }
    await sleep(20);
  }
};

const refused_upgrade = (socket, reject) =>
  socket.on('unexpected-response', (_, answer) => {
    const chunks = [];
    answer.on('data', (chunk) => chunks.push(chunk));
    answer.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      let data;
      try {
        data = JSON.parse(text);
      } catch {
        data = { message: `no JSON: ${text.slice(0, 200)}` };
      }
      const error = new Error(data.message);
      reject(Object.assign(error, { code: data.code, response: { status: answer.statusCode, data } }));
    });
  });

/** A connection that gets events, without a client: it can ask for interim captions. */
export class Watcher {
  static async open(user_id, { interim = false, as = user_token(user_id), first, record, user_agent = '' } = {}) {
    const query = new URLSearchParams({ api_key, 'stream-auth-type': 'jwt', ...(interim ? { interim: '1' } : {}) });
    if (user_agent) query.set('X-Stream-Client', user_agent);
    const watcher = new Watcher();
    const socket = new WebSocket(`${base.replace('http', 'ws')}/video/connect?${query}`);
    Object.assign(watcher, { socket, user_id, as, events: [], closed: null });
    socket.on('close', (code, reason) => (watcher.closed = { code, reason: reason.toString() }));
    socket.on('message', (data) => {
      const event = JSON.parse(data.toString());
      watcher.events.push(event);
      record?.({ kind: 'event', body: event });
    });
    await new Promise((resolve, reject) => {
      refused_upgrade(socket, reject);
      socket.on('open', resolve);
      socket.on('error', reject);
    });
    socket.send(first ?? JSON.stringify({ token: as, products: ['video'], user_details: { id: user_id } }));
    await until('an answer to the first frame, or a close', () => watcher.events.length || watcher.closed);
    watcher.connection_id = watcher.events[0]?.connection_id;
    return watcher;
  }

  /** Watches a call: its events come from now on. */
  watch(call_type, id) {
    const query = { user_id: this.user_id, connection_id: this.connection_id };
    return request('GET', `/video/call/${call_type}/${id}`, { as: this.as, query });
  }

  /** The events of a type, or of all calls' types, in their order. */
  of(type) {
    return this.events.filter((event) => (type ? event.type === type : event.type.startsWith('call.')));
  }

  close() {
    this.socket.close();
  }
}

const as_float32 = (samples) => {
  const floats = Buffer.alloc(samples.length * 2);
  for (let i = 0; i < samples.length / 2; i += 1) floats.writeFloatLE(samples.readInt16LE(i * 2) / 32_768, i * 4);
  return floats;
};

/** Somebody who speaks in a call: from the first frame to the last, as the service expects audio. */
export class Talk {
  static async open(call_type, id, user_id, { as = user_token(user_id), token_in = 'header', encoding = 'linear16' } = {}) {
    const talk = new Talk();
    Object.assign(talk, { user_id, encoding, frames: [], closed: null });
    const query = new URLSearchParams({
      api_key, user_id, encoding, sample_rate: String(SAMPLE_RATE), channels: '1',
    });
    const headers = token_in === 'header' ? { authorization: as, 'stream-auth-type': 'jwt' } : {};
    const url = `${base.replace('http', 'ws')}/video/call/${call_type}/${id}/audio?${query}`;
    talk.socket = new WebSocket(url, { headers });
    talk.socket.on('message', (data) => talk.frames.push(JSON.parse(data.toString())));
    talk.socket.on('close', (code, reason) => (talk.closed = { code, reason: reason.toString() }));
    try {
      await new Promise((resolve, reject) => {
        refused_upgrade(talk.socket, reject);
        talk.socket.on('open', resolve);
        talk.socket.on('error', reject);
      });
      if (token_in === 'frame') talk.socket.send(JSON.stringify({ token: as }));
      await until('a first frame, or a close', () => talk.frames.length || talk.closed);
      const { error } = talk.frames[0] ?? {};
      if (error) {
        throw Object.assign(new Error(error.message), { code: error.code, response: { status: error.StatusCode, data: error } });
      }
      if (talk.closed) throw new Error(`the audio connection was closed: ${JSON.stringify(talk.closed)}`);
    } catch (error) {
      talk.socket.terminate();
      throw error;
    }
    return talk;
  }

  /** Sends samples in frames of 20 ms, `speed` times as fast as they are spoken. */
  async send(pcm, speed = 4) {
    const done = speed > 1 ? await turn() : () => {};
    try {
      const began = Date.now();
      for (let at = 0, frame = 0; at < pcm.length; at += FRAME_BYTES, frame += 1) {
        if (this.closed) throw new Error(`the audio connection was closed: ${JSON.stringify(this.closed)}`);
        const samples = pcm.subarray(at, at + FRAME_BYTES);
        this.socket.send(this.encoding === 'float32' ? as_float32(samples) : samples);
        const ahead_ms = (frame * 20) / speed - (Date.now() - began);
        if (ahead_ms > 5) await sleep(ahead_ms);
        while (this.socket.bufferedAmount > 256 * 1024) await sleep(5);
      }
    } finally {
      done();
    }
  }

  /** Says a recording, or the part of it from `from` until `to`, in ms. */
  say(name, { from = 0, to, speed } = {}) {
    const bytes = (ms) => (ms === undefined ? undefined : Math.round(ms / 20) * FRAME_BYTES);
    return this.send(samples(name).subarray(bytes(from), bytes(to)), speed);
  }

  silence(ms, speed) {
    return this.send(Buffer.alloc(Math.round(ms / 20) * FRAME_BYTES), speed);
  }

  command(type) {
    this.socket.send(JSON.stringify({ type }));
  }

  /** Waits until the server has read all that was sent: it answers a ping in its turn. */
  async heard() {
    let answered = false;
    this.socket.once('pong', () => (answered = true));
    this.socket.ping();
    await until('an answer to a ping', () => answered || this.closed);
  }

  /** Leaves. */
  async close() {
    if (!this.closed) this.command('close');
    const end = Date.now() + 5_000;
    while (!this.closed && Date.now() < end) await sleep(10);
    if (!this.closed) this.socket.close();
  }
}
