use std::io::Read as _;

use anyhow::{Context as _, anyhow};

use super::advice::{self, advise};
use super::connection::ConnectionArgs;
use super::{output, render};
use crate::client::{Body, Error, OutgoingMessage};
use crate::domain::limits::BODY_BYTES_CEILING;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost send bob 'hello, bob'
  peerpost send bob - < notes.txt
  peerpost send bob -- '-5 degrees'            a text that begins with a dash
  peerpost send bob '{\"n\":1}' --content-type application/json --request-id order-17")]
pub(super) struct Args {
    /// Whom the message is for.
    to: String,

    /// The text; `-` reads stdin, byte for byte: as text when it is UTF-8, as data when it is not.
    text: String,

    /// What the content is, for the recipient's program, such as application/json.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,

    /// The message's key: sending again with the same one stores nothing new [default: a new UUID].
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Print the stored message as a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let client = connection.authenticated()?;
    let body = match args.text.as_str() {
        "-" => read_stdin()?,
        text => Body::from(text),
    };
    let mut message = OutgoingMessage::new(&args.to, body).with_content_type(&args.content_type);
    if let Some(request_id) = &args.request_id {
        message = message.with_request_id(request_id);
    }
    let request_id = message.request_id().to_owned();
    let sent = client.send_message(message).await.map_err(|error| explain(error, &request_id))?;
    if args.json {
        output::line(&render::message_json(&sent)?)
    } else {
        output::line(&render::sent_line(&sent))
    }
}

/// All of stdin, which has to fit into a message on any server.
fn read_stdin() -> anyhow::Result<Body> {
    let mut bytes = Vec::new();
    let limit_bytes = u64::try_from(BODY_BYTES_CEILING)?;
    std::io::stdin()
        .lock()
        .take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .context("cannot read stdin")?;
    if bytes.len() > BODY_BYTES_CEILING {
        return Err(anyhow!("stdin has more than {limit_bytes} bytes, which no server accepts"));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Body::from(text),
        Err(not_text) => Body::from(not_text.into_bytes()),
    })
}

/// After an ambiguous failure, says how to find out without sending twice.
fn explain(error: Error, request_id: &str) -> anyhow::Error {
    if !error.is_retriable() || matches!(error, Error::Connect { .. }) {
        return error.into();
    }
    let again = format!(
        "the message may be stored or not; the same command with `--request-id {request_id}` \
         stores it once"
    );
    match advice::for_client_error(&error) {
        Some(general) => advise(error, format!("{general}\n{again}")),
        None => advise(error, again),
    }
}
