// `@stream-io/video-client` in a page: the browser's build, as a bundler puts it together.
//
// In: `host_of_page`, which answers what only a server should know, and makes the sound. Out: `run_scenarios` for the test.

import * as video_client from '@stream-io/video-client';
import { run } from './lib/expect.mjs';
import { scenarios } from './scenarios.mjs';

const ask = (name, ...args) => window.host_of_page(name, args).then(({ answer, error }) => {
  if (error) throw Object.assign(new Error(error.message), error);
  return answer;
});

const start = async () => {
  const { base, api_key, location_hint_url, recordings } = await ask('settings');
  const host = {
    name: 'browser', base, api_key, WebSocket: window.WebSocket,
    offline: (name, how) => recordings[`${name}.${how}`],
    record: (record) => void ask('record', record),
    options: { locationHintUrl: location_hint_url },
    token: (user_id, how) => ask('token', user_id, how),
    server: (...request) => ask('server', ...request),
    talk: async (...where) => {
      const talk = await ask('talk', ...where);
      const act = (name) => (...args) => ask('act', talk, name, args);
      return { say: act('say'), silence: act('silence'), heard: act('heard'), close: act('close') };
    },
    // Of all that a page can see of a network that fails, this is what it is told.
    cut: async () => {
      await ask('offline', true);
      await ask('offline', false);
    },
  };
  return { say: (line) => void ask('say', line), ...scenarios(video_client, host) };
};

const started = start();

window.run_scenarios = async (only) => {
  const { list, say } = await started;
  // The network of a page fails for all of its connections.
  const alone = ['reconnect'];
  const [together, last] = [false, true].map((is_last) => list.filter(([name]) => alone.includes(name) === is_last));
  return (await run('browser', together, say, { at_once: 5, only })) + (await run('browser', last, say, { only }));
};

let after_restart;
window.before_restart = async () => {
  const { restart } = await started;
  after_restart = await restart();
};
window.after_restart = async () => {
  const { say } = await started;
  return run('browser', [['restart', after_restart]], say);
};
