// The console in a real browser (Debian's chromium), against the mock server. Started by run.sh.
//
// Fails on the first thing that isn't so, on any script error, and on anything that the page's policy refuses.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { chromium } from "./packages.mjs";
import { CONNECTION_STRING, start, token } from "./server.mjs";

const shots = process.argv[2];
if (shots) mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const DESKTOP = { width: 1440, height: 900 }, PHONE = { width: 390, height: 844 };
const tests = [];
const test = (name, work) => tests.push([name, work]);

/** A page whose errors count. */
async function open(server, { viewport = DESKTOP, colorScheme = "dark", reducedMotion = "no-preference", at = `#token=${token()}`, allow = () => false } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, reducedMotion, deviceScaleFactor: viewport === PHONE ? 2 : 1, hasTouch: viewport === PHONE });
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (message) => { if (message.type() === "error" && !allow(message.text())) page.problems.push(message.text()); });
  page.on("request", (request) => { if (!request.url().startsWith(server.base)) page.problems.push(`asked elsewhere: ${request.url()}`); });
  await page.goto(`${server.base}/console/${at}`);
  page.done = async () => {
    assert.deepEqual(page.problems, []);
    await context.close();
  };
  return page;
}

const shot = async (page, name) => { if (shots) await page.screenshot({ path: `${shots}/${name}.png` }); };
const isLive = (page) => page.locator(".pill.live").waitFor();
const onMap = (page) => page.locator(".map-info", { hasText: "on the map" }).waitFor();
/** Nothing is wider than the screen. */
const fits = async (page) => assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth || document.getElementById("main").scrollWidth > document.getElementById("main").clientWidth), false, `${page.url()} is wider than the screen`);

/** Texts that are too faint against what they stand on (WCAG 2.2, 1.4.3: 4.5, large ones 3). */
const faintTexts = (page) => page.evaluate(() => {
  const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
  const light = ([r, g, b]) => [r, g, b].map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    const colors = [];
    for (let one = element; one; one = one.parentElement) colors.push(parse(getComputedStyle(one).backgroundColor));
    return colors.reverse().filter((c) => c.length >= 3).reduce((under, c) => over(c, under), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, noscript, :disabled, .said, .skip")) continue;
    const style = getComputedStyle(element);
    const under = ground(element), text = over(parse(style.color), under);
    const [a, b] = [light(text), light(under)].sort((x, y) => y - x);
    const least = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < least - 0.01) found.push(`${walker.currentNode.data.trim().slice(0, 30)}: ${((a + 0.05) / (b + 0.05)).toFixed(2)} (${element.className || element.tagName})`);
  }
  return [...new Set(found)];
});

/** Things to press without a name. */
const nameless = (page) => page.evaluate(() => [...document.querySelectorAll("button, a[href], input, textarea")]
  .filter((one) => one.checkVisibility() && !(one.ariaLabel || one.title || one.textContent.trim() || one.labels?.length || one.placeholder)).map((one) => one.outerHTML.slice(0, 80)));

test("a token in the address signs in and leaves no trace there", async (server) => {
  const page = await open(server);
  await isLive(page);
  assert.equal(new URL(page.url()).hash, "#/overview");
  await page.reload();
  await isLive(page);
  const fresh = await page.context().newPage();
  await fresh.goto(`${server.base}/console/`);
  await fresh.locator("#connection-string").waitFor();
  await page.done();
});

test("a connection string signs in, a wrong key doesn't", async (server) => {
  const page = await open(server, { at: "", allow: (text) => text.includes("401") });
  await page.locator("#connection-string").fill(CONNECTION_STRING.replace("AAEC", "BBBB"));
  await page.locator("button[type=submit]").click();
  await page.locator(".problem", { hasText: "doesn't take" }).waitFor();
  await page.locator("#connection-string").fill("HostName=h;DeviceId=d;SharedAccessKey=a2V5");
  await page.locator("button[type=submit]").click();
  await page.locator(".problem", { hasText: "a device's connection string" }).waitFor();
  await shot(page, "signin-problem");
  await page.locator("#connection-string").fill(CONNECTION_STRING);
  await page.locator("#connection-string").press("Enter");
  await isLive(page);
  await page.done();
});

test("the overview lives: rates, map, alarms, records", async (server) => {
  const page = await open(server);
  await onMap(page);
  await page.locator(".tile .value", { hasText: /^\d/ }).first().waitFor();
  await page.locator(".record").first().waitFor();
  for (const [i, text] of ["turned back over the alps", "two aircraft within 1.8 km", "squawks 7600", "descends fast below 900 m"].entries()) {
    server.send("alarm", { device: server.world.planes[i * 7].id, text, level: ["info", "critical", "warning", "critical"][i], at: Date.now() - (4 - i) * 9000 });
  }
  await page.locator(".alarm", { hasText: "descends fast" }).waitFor();
  assert.match(await page.locator("#said").textContent(), /^Alarm of icao/);
  server.send("alarm", { device: "<img src=x onerror=alert(1)>", text: "<b>not markup</b>" });
  await page.locator(".alarm", { hasText: "<b>not markup</b>" }).waitFor();
  await page.waitForFunction(() => document.querySelector(".chart-box .u-over") !== null);
  await page.locator(".alarm", { hasText: "two aircraft" }).click();
  await page.locator(".map-card").waitFor();
  await page.locator(".map-card dd", { hasText: "°" }).waitFor();
  await page.keyboard.press("Escape");
  await fits(page);
  await page.done();
});

test("keys: sections, search, tables, map, help", async (server) => {
  const page = await open(server);
  await onMap(page);
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await page.locator("tbody tr").first().waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  const second = await page.locator("tbody tr").nth(1).evaluate((row) => row === document.activeElement);
  assert.equal(second, true);
  await page.keyboard.press("Enter");
  await page.locator(".device-head .badge").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("sensor-00");
  await page.keyboard.press("Enter");
  await page.locator("tbody tr").nth(9).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 10);
  await page.keyboard.press("?");
  await page.locator("dialog[open]").waitFor();
  await shot(page, "help");
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  await page.keyboard.press("o");
  await onMap(page);
  await page.keyboard.press("m");
  await page.keyboard.press("n");
  await page.locator(".map-card").waitFor();
  const chosen = await page.locator(".map-card header span").textContent();
  await page.keyboard.press("Enter");
  await page.locator(".device-head h1", { hasText: chosen }).waitFor();
  await page.done();
});

test("a device: charts, records, twin, and a change of it", async (server) => {
  const id = server.world.planes[3].id;
  const page = await open(server, { allow: (text) => text.includes("412") });
  await isLive(page);
  await page.goto(`${server.base}/console/#/devices/${id}`);
  await page.locator(".multiple canvas").nth(3).waitFor();
  assert.equal(await page.locator(".multiple header span", { hasText: "latitude" }).count(), 0);
  await page.locator(".tree .badge", { hasText: "pending" }).waitFor();
  await page.locator(".record-row summary").first().click();
  await page.locator(".record-row .tree .key", { hasText: "callsign" }).first().waitFor();
  await page.locator(".mini-map canvas").first().waitFor();
  await page.waitForTimeout(shots ? 1500 : 0);
  await shot(page, "device-dark");
  await page.getByRole("button", { name: "Edit" }).click();
  const text = page.locator(".editor textarea");
  await text.fill("[1]");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator(".editor .problem", { hasText: "object" }).waitFor();
  const { units, ...rest } = server.world.desired;
  await text.fill(JSON.stringify({ ...rest, intervalSeconds: 10 }));
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator(".tree .number", { hasText: /^10$/ }).waitFor();
  assert.deepEqual(server.state.patches.at(-1), { desired: { units: null, intervalSeconds: 10 }, version: 7 });
  await page.getByRole("button", { name: "Edit" }).click();
  server.world.version += 1;
  await text.fill("{}");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator(".editor .problem", { hasText: "changed meanwhile" }).waitFor();
  await page.done();
});

test("the link breaks and comes back", async (server) => {
  const page = await open(server, { allow: (text) => /WebSocket|status of 404|Failed to load/.test(text) });
  await isLive(page);
  server.state.live = false;
  server.dropLive();
  await page.locator("#banner", { hasText: "Connection lost" }).or(page.locator(".pill.polling")).first().waitFor();
  await shot(page, "lost");
  server.state.live = true;
  await page.reload();
  await isLive(page);
  assert.equal(await page.locator("#banner").isHidden(), true);
  server.dropLive();
  await page.locator(".pill.lost").waitFor();
  await isLive(page);
  await page.done();
});

test("without a realtime tier the page polls", async () => {
  const server = await start({ live: false });
  const page = await open(server, { allow: (text) => text.includes("404") });
  await page.locator(".pill.polling").waitFor();
  await page.locator(".tile .value", { hasText: /^[\d.]+k?\/s/ }).first().waitFor();
  await page.done();
  await server.stop();
});

test("a token that is over asks to sign in again", async (server) => {
  const page = await open(server, { at: "#token=a.b.c", allow: (text) => text.includes("401") });
  await page.locator("#connection-string").waitFor();
  await page.done();
});

test("every view in both themes and on a phone: readable, named, within the screen", async (server) => {
  const id = server.world.planes[8].id;
  const views = [["overview", "#/overview", ".record"], ["devices", "#/devices", "tbody tr"], ["device", `#/devices/${id}`, ".multiple canvas"], ["partitions", "#/partitions", ".node-card"], ["functions", "#/functions", ".function .logs p"], ["about", "#/about", ".facts"], ["none", "#/devices?q=nothing", ".empty"]];
  for (const [kind, options] of [["dark", {}], ["light", { colorScheme: "light" }], ["phone-dark", { viewport: PHONE }], ["phone-light", { viewport: PHONE, colorScheme: "light" }], ["small", { viewport: { width: 360, height: 640 } }], ["tablet", { viewport: { width: 900, height: 1100 } }], ["still", { reducedMotion: "reduce" }]]) {
    const page = await open(server, options);
    await onMap(page);
    for (let i = 0; i < 5; i++) server.send("alarm", { ...server.world.alarm(Date.now() - (5 - i) * 7000) });
    for (const [name, hash, sign] of views) {
      await page.evaluate((to) => { location.hash = to; }, hash);
      await page.locator(sign).first().waitFor();
      if (shots && ["overview", "device"].includes(name)) await page.waitForTimeout(kind === "dark" ? 9000 : 2500);
      await shot(page, `${name}-${kind}`);
      await fits(page);
      assert.deepEqual(await nameless(page), [], `${name} ${kind}`);
      assert.deepEqual(await faintTexts(page), [], `${name} ${kind}`);
      if (name === "overview" && kind !== "small") {
        await page.locator(".alarm").first().click();
        await page.locator(".map-card").waitFor();
        if (shots) await page.waitForTimeout(900);
        await shot(page, `chosen-${kind}`);
      }
    }
    await page.done();
  }
});

let failed = 0;
const wanted = process.env.ONLY ? tests.filter(([name]) => name.includes(process.env.ONLY)) : tests;
for (const [name, work] of wanted) {
  const server = await start();
  try {
    await work(server);
    assert.deepEqual(server.state.failures, []);
    console.log(`ok   ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}\n${error.stack}`);
  }
  await server.stop();
}
await browser.close();
console.log(`${wanted.length - failed} of ${wanted.length} passed`);
process.exit(failed > 0 ? 1 : 0);
