//! Empty: the programs are the package's binaries. A library target lets `kplb` name this package as a build
//! dependency, which makes cargo rebuild it when the programs change.

#![no_std]
