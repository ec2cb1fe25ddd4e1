use std::io::{BufRead, IsTerminal as _, Read as _, stdin};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::time::sleep;
use tonic::Code;

use super::advice::{self, advise};
use super::connection::ConnectionArgs;
use super::{duration, output, render};
use crate::client::{Body, Client, Error, Message, OutgoingMessage};
use crate::domain::limits::BODY_BYTES_CEILING;

/// How long `--lines` waits before it tries a server again that was given up as away.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost send bob 'hello, bob'
  echo hello | peerpost send bob
  peerpost send bob < notes.txt
  peerpost send bob - --content-type image/png < picture.png
  tail -f app.log | peerpost send bob --lines
  peerpost send bob --lines --request-id import-1 < list.txt
  peerpost send bob -- '-5 degrees'            a text that begins with a dash
  peerpost send bob '{\"n\":1}' --content-type application/json --request-id order-17

Without TEXT, stdin is the message: text when it is UTF-8, data when it is not. The line end at the
end of a text, which `echo` and editors add, is not sent; with `-` every byte is.

With --lines each line of stdin is a message, sent as it comes and in order; empty lines are left out.
A server that is away is waited for. It ends at the first line that is refused, says which, and sends
nothing after it. With --request-id ID the n-th line has the key ID-n: sending the same input again
stores only what was not stored.")]
pub(super) struct Args {
    /// Whom the message is for.
    to: String,

    /// The text; `-` reads stdin, byte for byte [default: stdin, without its last line end].
    text: Option<String>,

    /// Send each line of stdin as a message, as it comes.
    #[arg(long, conflicts_with = "text")]
    lines: bool,

    /// What the content is, for the recipient's program, such as application/json.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,

    /// The message's key: sending again with the same one stores nothing new [default: a new UUID].
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Let the message's content be gone so long after it is sent, such as 1h or 7d [default: never].
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_some)]
    ttl: Option<Duration>,

    /// Print the stored message as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let client = connection.authenticated()?;
    if stdin().is_terminal() && args.text.as_deref().is_none_or(|text| text == "-") {
        output::note("type the message; Ctrl-D at the beginning of a line ends it");
    }
    if args.lines {
        return send_lines(&client, args).await;
    }
    let body = match args.text.as_deref() {
        Some("-") => to_body(read_stdin()?),
        Some(text) => Body::from(text),
        None => to_body_without_line_end(read_stdin()?),
    };
    if body.as_bytes().is_empty() {
        return Err(advise(
            anyhow!("there is nothing to send: the text is empty"),
            "a message has 1 byte or more",
        ));
    }
    let message = args.message(body, args.request_id.clone());
    let request_id = message.request_id().to_owned();
    let sent = client.send_message(message).await.map_err(|error| explain(error, &request_id))?;
    args.print(&sent)
}

impl Args {
    fn message(&self, body: Body, request_id: Option<String>) -> OutgoingMessage {
        let message = OutgoingMessage::new(&self.to, body).with_content_type(&self.content_type);
        let message = match self.ttl {
            Some(ttl) => message.expiring_after(ttl),
            None => message,
        };
        match request_id {
            Some(request_id) => message.with_request_id(request_id),
            None => message,
        }
    }

    fn print(&self, sent: &Message) -> anyhow::Result<()> {
        output::line(&if self.json { render::message_json(sent)? } else { render::sent_line(sent) })
    }
}

/// Each line as a message, one after the other: that is what keeps their order.
async fn send_lines(client: &Client, args: &Args) -> anyhow::Result<()> {
    let (mut number, mut sent) = (0_u64, 0_u64);
    loop {
        let read = tokio::task::spawn_blocking(|| read_line(&mut stdin().lock()));
        let line = read.await.context("the reading thread failed")?;
        number += 1;
        let told = |error: anyhow::Error| {
            let context = format!("line {number} is not sent, nor any after it; {sent} were sent");
            error.context(context)
        };
        let Some(line) = line.map_err(told)? else { return Ok(()) };
        if line.is_empty() {
            continue;
        }
        let request_id = args.request_id.as_ref().map(|id| format!("{id}-{number}"));
        let message = args.message(to_body(line), request_id);
        let stored =
            send_until_answered(client, message).await.map_err(|error| told(error.into()))?;
        sent += 1;
        args.print(&stored)?;
    }
}

/// Sends it for as long as the server is away: what feeds the pipe does not end either.
async fn send_until_answered(client: &Client, message: OutgoingMessage) -> Result<Message, Error> {
    let mut is_told = false;
    loop {
        match client.send_message(message.clone()).await {
            Err(error) if error.is_retriable() => {
                if !is_told {
                    output::note(&format!("{error}; trying until it is sent"));
                    is_told = true;
                }
                sleep(error.retry_delay().unwrap_or(RETRY_DELAY)).await;
            }
            outcome => return outcome,
        }
    }
}

/// The next line without its end; `None` after the last.
fn read_line(from: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(BODY_BYTES_CEILING)? + 2;
    if from.take(limit).read_until(b'\n', &mut line).context("cannot read stdin")? == 0 {
        return Ok(None);
    }
    strip_line_end(&mut line);
    check_size(&line)?;
    Ok(Some(line))
}

/// All of stdin, which has to fit into a message on any server.
fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(BODY_BYTES_CEILING)? + 2;
    stdin().lock().take(limit).read_to_end(&mut bytes).context("cannot read stdin")?;
    check_size(&bytes)?;
    Ok(bytes)
}

fn check_size(bytes: &[u8]) -> anyhow::Result<()> {
    if bytes.len() <= BODY_BYTES_CEILING {
        return Ok(());
    }
    Err(advise(
        anyhow!("it has more than {BODY_BYTES_CEILING} bytes, which no server accepts"),
        "most accept 65536; `split -b 64000` cuts a file, `--lines` sends a message a line",
    ))
}

fn strip_line_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

fn to_body(bytes: Vec<u8>) -> Body {
    match String::from_utf8(bytes) {
        Ok(text) => Body::from(text),
        Err(not_text) => Body::from(not_text.into_bytes()),
    }
}

/// Text without the line end at its end. Data is left as it is: there it would be no line end.
fn to_body_without_line_end(mut bytes: Vec<u8>) -> Body {
    if std::str::from_utf8(&bytes).is_ok() {
        strip_line_end(&mut bytes);
    }
    to_body(bytes)
}

/// After a failure that can pass, says how to try again without sending twice.
fn explain(error: Error, request_id: &str) -> anyhow::Error {
    if !error.is_retriable() || matches!(error, Error::Connect { .. }) {
        return error.into();
    }
    // A refusal for a limit stores nothing, but an attempt before it may have.
    let is_limit = error.code() == Some(Code::ResourceExhausted);
    let doubt = if is_limit { "later" } else { "the message may be stored or not;" };
    let again = format!("{doubt} the same command with `--request-id {request_id}` stores it once");
    match advice::for_client_error(&error) {
        Some(general) => advise(error, format!("{general}\n{again}")),
        None => advise(error, again),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_a_text() {
        for (bytes, body) in [
            (&b"hi\n"[..], Body::from("hi")),
            (b"hi\r\n", Body::from("hi")),
            (b"hi\n\n", Body::from("hi\n")),
            (b"two\nlines", Body::from("two\nlines")),
            (b"\n", Body::from("")),
            (b"\xff\n", Body::from(vec![0xff, b'\n'])),
        ] {
            assert_eq!(to_body_without_line_end(bytes.to_vec()), body);
        }
    }

    #[test]
    fn lines_are_read_one_by_one_and_bounded() {
        let mut input = &b"one\ntwo\r\n\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).expect("a line") {
            lines.push(String::from_utf8(line).expect("text"));
        }
        assert_eq!(lines, ["one", "two", "", "last"]);
        let longest = vec![b'x'; BODY_BYTES_CEILING];
        let mut input = [&longest[..], b"\r\n"].concat();
        assert_eq!(read_line(&mut &input[..]).expect("fits").map(|it| it.len()), Some(1024 * 1024));
        input.insert(0, b'x');
        assert!(read_line(&mut &input[..]).is_err());
    }
}
