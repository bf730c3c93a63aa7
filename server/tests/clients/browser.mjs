// `@stream-io/video-client` in Chromium, without a window: a page from another origin than the server's.
//
// In: see `lib/host.mjs`; beside it `CLIENTS_CHROMIUM`, the program, and `CLIENTS_PAGE_PORT`, where the page is served. With
// `restart` see `video.mjs`. Out: a line a check; exits with 1 where one failed.

import { build } from 'esbuild';
import { once } from 'node:events';
import { readFile, readdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { fragments, sleep } from './lib/expect.mjs';
import { Talk, api_key, base, now_s, recorder, request, say, token, user_token } from './lib/host.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const port = Number(process.env.CLIENTS_PAGE_PORT);
const origin = `http://127.0.0.1:${port}`;

// A page is no server: it has neither tokens nor sound of its own.
const record = recorder('browser');
const talks = [];
const answers = {
  say, record,
  settings: async () => {
    const recordings = {};
    const folder = join(process.env.CLIENTS_WORK, 'speech');
    for (const file of await readdir(folder)) {
      if (file.endsWith('.jsonl')) recordings[file.slice(0, -6)] = fragments(await readFile(join(folder, file), 'utf8'));
    }
    return { base, api_key, recordings, location_hint_url: `${origin}/hint` };
  },
  token: (user_id, { lives_s, forged } = {}) =>
    forged ? token({ user_id }, 'another secret') : user_token(user_id, lives_s ? { exp: now_s() + lives_s } : {}),
  server: (method, path, body) => request(method, path, { body }),
  talk: async (call_type, id, user_id, options) => {
    talks.push(await Talk.open(call_type, id, user_id, options ?? {}));
    return talks.length - 1;
  },
  act: (talk, name, args) => talks[talk][name](...args),
};

const script = await build({
  entryPoints: [join(here, 'page.mjs')], bundle: true, write: false, format: 'esm', platform: 'browser', logLevel: 'error',
  // What a bundler of an application says to it.
  define: { 'process.env.NODE_ENV': '"production"' },
});
const page_script = script.outputFiles[0].text;
const page_html = await readFile(join(here, 'page.html'));
const hints = [];
const server = createServer((asked, answer) => {
  const { pathname } = new URL(asked.url, origin);
  if (pathname === '/hint') {
    hints.push(asked.method);
    answer.writeHead(200, { 'x-amz-cf-pop': 'AMS1-P2' }).end();
  } else if (pathname === '/page.js') {
    answer.writeHead(200, { 'content-type': 'text/javascript' }).end(page_script);
  } else if (pathname === '/') {
    answer.writeHead(200, { 'content-type': 'text/html' }).end(page_html);
  } else {
    answer.writeHead(404).end();
  }
});
server.listen(port, '127.0.0.1');
await once(server, 'listening');

const browser = await chromium.launch({
  executablePath: process.env.CLIENTS_CHROMIUM, headless: true,
  // A container has neither a sandbox nor much shared memory.
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
});
const context = await browser.newContext();
const page = await context.newPage();
const elsewhere = [];
const asked = (url) => {
  const { host, protocol } = new URL(url);
  const is_ours = host === new URL(base).host || host === new URL(origin).host || protocol === 'data:' || protocol === 'blob:';
  if (!is_ours) elsewhere.push(url);
};
context.on('request', (request) => asked(request.url()));
page.on('websocket', (socket) => asked(socket.url()));
const errors = [];
// What the client leaves unhandled where a connection is refused for good; all else is a fault.
page.on('pageerror', (error) => String(error).includes('"code":40') || errors.push(String(error)));
answers.offline = (is_offline) => context.setOffline(is_offline);
await page.exposeFunction('host_of_page', async (name, args) => {
  try {
    return { answer: await answers[name](...args) };
  } catch (error) {
    return { error: { message: String(error.message), code: error.code, status: error.response?.status } };
  }
});
await page.goto(origin);
await page.waitForFunction(() => window.run_scenarios, null, { timeout: 20_000 });

let failed;
const [first, ...more] = process.argv.slice(2);
if (first === 'restart') {
  await page.evaluate(() => window.before_restart());
  say('RESTART');
  await once(process.stdin, 'data');
  failed = await page.evaluate(() => window.after_restart());
} else {
  failed = await page.evaluate((only) => window.run_scenarios(only), first ? [first, ...more] : undefined);
}
await sleep(100);
const check = (what, is_so, got) => {
  say(is_so ? `ok   browser: page: ${what}` : `FAIL browser: page: ${what}: got ${JSON.stringify(got)}`);
  if (!is_so) failed += 1;
};
check('nothing was asked of any other host', elsewhere.length === 0, elsewhere.slice(0, 5));
check('the location hint was asked of the page\'s own', hints.length > 0, hints);
check('no error was left to the page', errors.length === 0, errors.slice(0, 5));
await browser.close();
server.close();
process.exit(failed ? 1 : 0);
