// `@stream-io/video-client` in Node.
//
// In: see `lib/host.mjs`. `video.mjs restart` is what is to be done around a restart of the server: it says `RESTART` when the
// server is to be restarted, and goes on when it gets a line. Out: a line a check; exits with 1 where one failed.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import WebSocket from 'ws';
import { Talk, api_key, base, offline, recorder, request, say, token, user_token, now_s } from './lib/host.mjs';
import { run } from './lib/expect.mjs';
import { scenarios } from './scenarios.mjs';

// What the client offers to Node is its CommonJS build.
const video_client = createRequire(import.meta.url)('@stream-io/video-client');

export const host = {
  name: 'video', base, api_key, WebSocket, offline,
  record: recorder('video'),
  options: { allowServerSideConnect: true },
  token: (user_id, { lives_s, forged } = {}) =>
    forged ? token({ user_id }, 'another secret') : user_token(user_id, lives_s ? { exp: now_s() + lives_s } : {}),
  server: (method, path, body) => request(method, path, { body }),
  talk: (call_type, id, user_id, options) => Talk.open(call_type, id, user_id, options),
  cut: (one) => one.sockets.at(-1).terminate(),
};

// What the client leaves unhandled where a connection is refused for good; all else is a fault.
process.on('unhandledRejection', (error) => {
  if (!String(error?.message).includes('"code":40')) throw error;
});

const { list, restart } = scenarios(video_client, host);
const [first, ...more] = process.argv.slice(2);
if (first === 'restart') {
  const after = await restart();
  say('RESTART');
  await once(process.stdin, 'data');
  process.exit((await run('video', [['restart', after]], say)) ? 1 : 0);
}
const only = first ? [first, ...more] : undefined;
process.exit((await run('video', list, say, { at_once: 5, only })) ? 1 : 0);
