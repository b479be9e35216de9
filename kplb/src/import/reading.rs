//! Files on their way in: who opens them, how they are named in findings, and that there is an end to them.

use std::{collections::HashMap, io, net::IpAddr, path::Path, sync::Arc};

use super::{
    error::ImportError,
    finding::{Findings, Place, plain},
    limits::Budget,
};

/// What an import asks of the machine that it runs on; nothing else of it does.
pub trait Surroundings {
    /// The content of a file.
    ///
    /// # Errors
    /// What the system says.
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a directory.
    ///
    /// # Errors
    /// What the system says.
    fn list(&mut self, directory: &Path) -> io::Result<Vec<String>>;

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// The addresses that a host's name stands for now.
    fn resolve(&mut self, host: &str) -> Vec<IpAddr>;
}

/// An import under way.
pub(super) struct Reading<'s> {
    pub(super) surroundings: &'s mut dyn Surroundings,
    pub(super) findings: Findings,
    pub(super) budget: Budget,
    /// Names that were looked up.
    hosts: HashMap<String, Vec<IpAddr>>,
}

/// Names that are looked up: each that has no answer takes seconds.
const MAX_HOSTS: usize = 64;

/// A file that was opened.
#[derive(Clone, Debug)]
pub(super) struct File {
    name: Arc<str>,
    rank: usize,
}

impl File {
    pub(super) fn place(&self, line: usize) -> Place {
        Place::new(self.rank, &self.name, line)
    }

    /// As it was named.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl<'s> Reading<'s> {
    pub(super) fn new(surroundings: &'s mut dyn Surroundings) -> Self {
        Self { surroundings, findings: Findings::default(), budget: Budget::default(), hosts: HashMap::new() }
    }

    /// The addresses of a host's name, as far as they are known.
    pub(super) fn resolve(&mut self, name: &str) -> Vec<IpAddr> {
        if let Some(addresses) = self.hosts.get(name) {
            return addresses.clone();
        }
        if self.hosts.len() >= MAX_HOSTS {
            return Vec::new();
        }
        let addresses = self.surroundings.resolve(name);
        self.hosts.insert(name.to_owned(), addresses.clone());
        addresses
    }

    /// A file's text. What is not UTF-8 in it is replaced: it can stand in comments only.
    pub(super) fn open(&mut self, path: &Path) -> Result<(File, String), OpenError> {
        let bytes = self.surroundings.read(path).map_err(OpenError::Read)?;
        let name: Arc<str> = plain(&path.display().to_string()).into();
        let rank = self.budget.file(bytes.len(), &Place::new(0, &name, 1)).map_err(OpenError::Other)?;
        Ok((File { name, rank }, String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The same of a file that must be there.
    pub(super) fn open_named(&mut self, path: &Path) -> Result<(File, String), ImportError> {
        self.open(path).map_err(|error| match error {
            OpenError::Read(source) => ImportError::Read { path: path.into(), source },
            OpenError::Other(error) => error,
        })
    }
}

/// Why a file is not open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// It could not be read.
    Read(io::Error),
    /// It is too much.
    Other(ImportError),
}
