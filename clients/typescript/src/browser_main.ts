// As main.ts, with two pages in a headless Chromium. The pages come from an origin of their own, which
// the server must allow: PEERPOST_PAGE_PORT says which.
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { fileURLToPath } from "node:url";

import { chromium, type Page, type Route } from "playwright-core";

/** How long what was sent may be on its way, a restart of the server included. */
const ARRIVES_WITHIN_MS = 60_000;

const FILES: Record<string, string> = { "/": "text/html", "/dist/page.js": "text/javascript" };

/** Serves the page on its own port. */
async function servePage(port: number): Promise<Server> {
  const folder = fileURLToPath(new URL("../page", import.meta.url));
  const pages = createServer(async (request, response) => {
    const path = new URL(request.url!, "http://page").pathname;
    const type = FILES[path];
    if (!type) return void response.writeHead(404).end();
    const file = await readFile(folder + (path === "/" ? "/index.html" : path));
    response.writeHead(200, { "content-type": type }).end(file);
  });
  await new Promise<void>((resolve) => pages.listen(port, "127.0.0.1", resolve));
  return pages;
}

async function main(server: string, count: number): Promise<void> {
  const port = Number(process.env.PEERPOST_PAGE_PORT ?? 8080);
  const pages = await servePage(port);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    // A window each: a tab in the background is given little time.
    const newPage = () => browser.newPage({ viewport: { width: 640, height: 720 } });
    const address = `http://127.0.0.1:${port}/?server=http://${server}`;
    const suffix = randomBytes(4).toString("hex");
    const [aliceName, bobName] = [`alice-browser-${suffix}`, `bob-browser-${suffix}`];
    const alice = await register(await newPage(), address, aliceName);
    const bob = await register(await newPage(), address, bobName);
    console.log("registered", aliceName, bobName);

    await send(alice, "no such name!", "hello");
    const { reason, fields } = await alice.locator("#problem").evaluate((it: HTMLElement) => ({ ...it.dataset }));
    console.log("refused", reason, fields);

    // One answer is lost on its way: the page repeats the message, which is there already.
    let answersLost = 0;
    const loseAnswer = async (route: Route) => {
      await route.fetch();
      answersLost++;
      await route.abort("connectionreset");
    };
    await alice.route("**/SendMessage", loseAnswer, { times: 1 });
    for (let number = 1; number <= count; number++) {
      await send(alice, bobName, String(number));
      const problem = await alice.locator("#problem").textContent();
      if (problem) throw new Error(`message ${number} was refused: ${problem}`);
      if (number % (count / 4) === 0) console.log("sent", number);
    }

    // Her own mailbox is numbered without a hole too: nothing was stored twice.
    for (const page of [alice, bob]) await expectNumbers(page, count);
    if (answersLost !== 1) throw new Error("no answer was lost");
    const reconnections = Number(await bob.locator("#state").getAttribute("data-connections")) - 1;
    if (process.env.SCREENSHOT) await bob.screenshot({ path: process.env.SCREENSHOT });
    // Who one is survives a reload, and the mailbox is read again.
    await bob.reload();
    await expectNumbers(bob, count);
    console.log(`ok browser: ${count} messages, each once and in order; reconnected ${reconnections} times`);
  } finally {
    await browser.close();
    pages.close();
  }
}

async function register(page: Page, address: string, username: string): Promise<Page> {
  page.setDefaultTimeout(ARRIVES_WITHIN_MS);
  page.on("pageerror", (error) => console.error(username, error));
  await page.goto(address);
  await page.getByLabel("your name").fill(username);
  await page.getByRole("button", { name: "Register" }).click();
  await page.locator("#state[data-state=connected]").waitFor();
  return page;
}

/** Sends as a person would, and waits until the page says that it is done. */
async function send(page: Page, to: string, text: string): Promise<void> {
  await page.getByLabel("to", { exact: true }).fill(to);
  await page.getByLabel("message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator("#send button:enabled").waitFor();
}

/** Waits until the page shows `count` messages, and fails unless they are 1, 2, 3, … */
async function expectNumbers(page: Page, count: number): Promise<void> {
  const items = page.locator("#mailbox li");
  await items.nth(count - 1).waitFor();
  const shown = await items.evaluateAll((all) =>
    all.map((item) => `${(item as HTMLElement).dataset.sequence}: ${item.querySelector(".text")!.textContent}`),
  );
  const expected = Array.from({ length: count }, (_, index) => `${index + 1}: ${index + 1}`);
  if (JSON.stringify(shown) !== JSON.stringify(expected)) throw new Error(`the page shows ${shown}`);
}

await main(process.argv[2], Number(process.argv[3]));
