//! Prometheus's part: asking an agent for its metrics, and `promtool`, which judges them, dashboards and rules.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::lab::Host;

/// What a scrape may take by default.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The body.
    pub text: String,
    samples: BTreeMap<String, f64>,
}

/// Asks for metrics on a host.
///
/// # Errors
/// If they are not served.
pub fn scrape(host: &Host, address: SocketAddr) -> Result<Scrape> {
    let answer = exchange(host, address, "GET /metrics HTTP/1.1\r\nHost: kplb\r\n\r\n")?;
    let (head, text) = answer.split_once("\r\n\r\n").with_context(|| format!("no end of the head in {answer:?}"))?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}\n{text}");
    ensure!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| -> Result<(String, f64)> {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("no value in {line:?}"))?;
        Ok((name.to_owned(), value.parse().with_context(|| format!("no number in {line:?}"))?))
    };
    Ok(Scrape { samples: lines.map(sample).collect::<Result<_>>()?, text: text.to_owned() })
}

/// Sends these bytes on a connection of its own, on a host, and returns all that comes back.
///
/// # Errors
/// If nobody listens, or the connection stays open.
pub fn exchange(host: &Host, address: SocketAddr, request: &str) -> Result<String> {
    host.namespace().run(|| {
        let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("read an answer of {address}"))?;
        Ok(answer)
    })
}

impl Scrape {
    /// The value of a metric with these labels, as they are written.
    ///
    /// # Errors
    /// If there is none.
    pub fn value(&self, sample: &str) -> Result<f64> {
        self.samples.get(sample).copied().with_context(|| format!("no {sample} in\n{}", self.text))
    }

    /// The sum of all samples of a metric with these labels among theirs.
    pub fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        let start = format!("{metric}{{");
        let is_meant = |sample: &str| sample.starts_with(&start) && labels.iter().all(|label| sample.contains(label));
        self.samples.iter().filter(|(sample, _)| is_meant(sample)).map(|(_, value)| value).sum()
    }

    /// Whether there is a metric of this name.
    pub fn has(&self, metric: &str) -> bool {
        self.samples.keys().any(|sample| sample == metric || sample.starts_with(&format!("{metric}{{")))
    }

    /// The counters, which never go down.
    pub fn counters(&self) -> impl Iterator<Item = (&str, f64)> {
        let is_counter = |sample: &str| sample.split('{').next().is_some_and(|metric| metric.ends_with("_total"));
        self.samples
            .iter()
            .filter(move |(sample, _)| is_counter(sample))
            .map(|(sample, value)| (sample.as_str(), *value))
    }
}

/// Runs `promtool` in a directory; returns what it wrote to standard output.
///
/// # Errors
/// With all that it wrote, if it finds something wrong.
pub fn promtool(directory: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start promtool (`cargo xtask setup` installs it)")?;
    let mut stdin = child.stdin.take().expect("standard input is piped above");
    // One that reads no input may have ended: what matters then is what it says.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("promtool {arguments:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    written.or_else(|error| if input.is_empty() { Ok(()) } else { Err(error) }).context("write to promtool")?;
    Ok(text(&output.stdout) + &text(&output.stderr))
}
