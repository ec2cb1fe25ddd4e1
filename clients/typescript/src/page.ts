// A page in which one registers, sees one's mailbox live, and sends: peer.ts over gRPC-Web. The server
// must allow the page's origin (`peerpost serve --allow-origin http://127.0.0.1:8080`), and stands in
// the page's address: `?server=http://127.0.0.1:50051`.
import { ConnectError } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { explain, Position } from "./following";
import type { Message, SubscribeRequest, SubscribeResponse } from "./gen/peerpost/v1/messaging_pb";
import { Peer } from "./peer";

const server = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:50051";
const transport = createGrpcWebTransport({ baseUrl: server });

const registerForm = document.querySelector<HTMLFormElement>("#register")!;
const sendForm = document.querySelector<HTMLFormElement>("#send")!;
const mailbox = document.querySelector<HTMLOListElement>("#mailbox")!;
const state = document.querySelector<HTMLElement>("#state")!;
const problem = document.querySelector<HTMLElement>("#problem")!;

/** Who this tab is. It survives a reload; what should survive the tab belongs into `localStorage`. */
interface Identity {
  username: string;
  token: string;
}

/** A position that shows how it goes. Asked for at each attempt to connect, told of each event. */
class ShownPosition extends Position {
  override request(): SubscribeRequest {
    this.show("connecting");
    return super.request();
  }

  override accept(response: SubscribeResponse): Message | undefined {
    const message = super.accept(response);
    this.show("connected");
    return message;
  }

  private show(now: "connecting" | "connected"): void {
    state.dataset.state = now;
    state.dataset.connections = String(this.connections);
    state.textContent = now === "connected" ? identity!.username : "connecting …";
  }
}

let identity: Identity | undefined = JSON.parse(sessionStorage.getItem("peerpost") ?? "null") ?? undefined;
if (identity) enter(identity);

onSubmit(registerForm, async (fields) => {
  const username = String(fields.get("username"));
  const { token } = await Peer.register(transport, username);
  identity = { username, token };
  sessionStorage.setItem("peerpost", JSON.stringify(identity));
  enter(identity);
});

function enter({ username, token }: Identity): void {
  const peer = new Peer(transport, token);
  registerForm.hidden = true;
  sendForm.hidden = false;
  onSubmit(sendForm, async (fields) => {
    // One id for one message, however often the peer has to send it.
    await peer.send(String(fields.get("to")), String(fields.get("text")), crypto.randomUUID());
    sendForm.querySelector<HTMLInputElement>("[name=text]")!.value = "";
  });
  follow(peer, username).catch(show);
}

/** From the beginning, since the page keeps nothing; what is sent comes back in one's own mailbox. */
async function follow(peer: Peer, username: string): Promise<void> {
  for await (const message of peer.follow(new ShownPosition())) {
    const isSent = message.fromUser === username;
    const item = document.createElement("li");
    item.className = isSent ? "sent" : "received";
    item.dataset.sequence = String(message.sequence);
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = isSent ? `to ${message.toUser}` : message.fromUser;
    const text = document.createElement("span");
    text.className = "text";
    text.textContent = message.body.case === "text" ? message.body.value : "(not text)";
    item.append(who, text);
    mailbox.append(item);
    item.scrollIntoView({ block: "nearest" });
  }
}

/** Runs the action when the form is sent, and shows what goes wrong. The form waits meanwhile. */
function onSubmit(form: HTMLFormElement, action: (fields: FormData) => Promise<void>): void {
  const button = form.querySelector("button")!;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    await action(new FormData(form)).catch(show);
    button.disabled = false;
  });
}

function show(error: unknown): void {
  const { reason, fields } = explain(ConnectError.from(error));
  problem.dataset.reason = reason;
  problem.dataset.fields = fields.map(({ field }) => field).join(" ");
  problem.textContent = fields.map(({ description }) => description).join("; ") || String(error);
}
