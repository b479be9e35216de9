//! A command's side of the control socket.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{Answer, Request, RequestLine};

/// A connection to an agent.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the agent at `path`; `None` when there is none. Each answer must come within `patience`.
    pub fn connect(path: &Path, patience: Duration) -> Result<Option<Self>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            // No file, or one that a killed agent left.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("connect to the agent at {}", path.display())),
        };
        stream.set_read_timeout(Some(patience)).context("set a time limit")?;
        stream.set_write_timeout(Some(patience)).context("set a time limit")?;
        Ok(Some(Self { stream: BufReader::new(stream) }))
    }

    /// Asks, and returns the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Answer> {
        let mut text = serde_json::to_vec(&RequestLine { command: request.clone() }).context("encode the request")?;
        text.push(b'\n');
        self.stream.get_mut().write_all(&text).context("send the request to the agent")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("read the agent's answer")?;
        if line.is_empty() {
            bail!("the agent ended before it answered");
        }
        serde_json::from_str(&line).context("understand the agent's answer; is it of another version?")
    }

    /// Waits until the agent closes the connection, which it does by ending.
    pub fn wait_for_end(mut self) -> Result<()> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            // A connection that is closed with a request unread is reset: closed all the same.
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error).context("wait for the agent to end"),
            _ => Ok(()),
        }
    }
}
