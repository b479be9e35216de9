//! Why directives of haproxy have no equivalent, and what to do about it.

use super::lines::Line;
use crate::import::finding::NOTHING_TO_DO;

/// Why, and what to do.
pub(super) type Reason = (&'static str, &'static str);

const ACCESS: Reason = (
    "kplb lets every client through, and looks at nothing that it sends",
    "filter by addresses in the nodes' firewall (nftables), before kplb or at the backends",
);
const CONNECTION: Reason = (
    "clients' connections end at the backends, and not at the balancer",
    "nothing to do, backends and clients have their own settings of TCP",
);
const HTTP: Reason = ("kplb does not look into connections, so HTTP is between client and backend", NOTHING_TO_DO);
const IDLE: Reason = (
    "kplb ends no connection for being idle (it forgets one after `established_lifetime`)",
    "nothing to do, watches and `kubectl exec` live longer now",
);
const LIMIT: Reason = ("kplb limits no connections but by the size of its table", "see `max` in the table [flows]");
const LOGS: Reason = ("kplb logs no connections", "see `kplb status` for what became of packets");
const PROCESS: Reason = ("it is about haproxy's own process", NOTHING_TO_DO);
const RETRY: Reason = (
    "kplb does not connect for clients: a connection that was refused is theirs to try again",
    "nothing to do, the next one goes to a backend that answers",
);
const STATS: Reason = ("kplb has no page or socket of this kind", "use `kplb status --json`");
const TLS: Reason = ("kplb leaves TLS to client and backend", NOTHING_TO_DO);

/// Why this directive has no equivalent. Every one has a reason: what nobody knows has that.
pub(super) fn reason(line: &Line) -> Reason {
    let keyword = line.keyword();
    match (keyword, line.argument(1).unwrap_or_default()) {
        ("option", option) => self::option(option),
        ("timeout", "client" | "server" | "tunnel" | "client-fin" | "server-fin") => IDLE,
        ("timeout", "queue" | "tarpit") => LIMIT,
        ("timeout", "http-request" | "http-keep-alive") => HTTP,
        ("timeout", "client-hs") => TLS,
        ("tcp-request" | "tcp-response", _) => ACCESS,
        _ => self::keyword(keyword),
    }
}

fn option(option: &str) -> Reason {
    match option {
        "httplog"
        | "httpslog"
        | "tcplog"
        | "dontlognull"
        | "dontlog-normal"
        | "log-health-checks"
        | "log-separate-errors"
        | "logasap"
        | "socket-stats"
        | "contstats" => LOGS,
        "redispatch" | "persist" | "abortonclose" | "prefer-last-server" => RETRY,
        "tcpka"
        | "clitcpka"
        | "srvtcpka"
        | "nolinger"
        | "splice-auto"
        | "splice-request"
        | "splice-response"
        | "tcp-smart-accept"
        | "tcp-smart-connect"
        | "independent-streams"
        | "idle-close-on-response" => CONNECTION,
        "allbackups" => {
            ("no server of kplb is only there for when others are not", "see what became of the servers with `backup`")
        }
        "transparent" => ("kplb leads clients to backends that are listed", "list them"),
        "forwardfor" | "originalto" => (
            "kplb does not look into connections; a backend sees the node's address, or on the node itself the client's",
            NOTHING_TO_DO,
        ),
        _ => HTTP,
    }
}

fn keyword(keyword: &str) -> Reason {
    match keyword {
        "log" | "log-format" | "log-format-sd" | "log-tag" | "log-send-hostname" | "error-log-format" | "log-steps"
        | "quick-exit" => LOGS,
        "maxconn"
        | "fullconn"
        | "backlog"
        | "rate-limit"
        | "max-keep-alive-queue"
        | "maxconnrate"
        | "maxsessrate"
        | "maxsslconn"
        | "maxsslrate"
        | "maxpipes"
        | "maxcomprate" => LIMIT,
        "retries" | "retry-on" => RETRY,
        "acl" | "use-server" | "force-persist" | "ignore-persist" => ACCESS,
        "stats" | "monitor-uri" | "monitor" | "monitor-net" => STATS,
        "source" | "clitcpka-cnt" | "clitcpka-idle" | "clitcpka-intvl" | "srvtcpka-cnt" | "srvtcpka-idle"
        | "srvtcpka-intvl" => CONNECTION,
        "http-request"
        | "http-response"
        | "http-after-response"
        | "http-error"
        | "http-reuse"
        | "http-send-name-header"
        | "cookie"
        | "capture"
        | "compression"
        | "errorfile"
        | "errorfiles"
        | "errorloc"
        | "errorloc302"
        | "errorloc303"
        | "redirect"
        | "unique-id-format"
        | "unique-id-header"
        | "declare"
        | "filter"
        | "use-fcgi-app"
        | "persist"
        | "email-alert" => HTTP,
        "id"
        | "description"
        | "bind-process"
        | "load-server-state-from-file"
        | "server-state-file-name"
        | "server-state-base"
        | "server-state-file"
        | "chroot"
        | "user"
        | "group"
        | "uid"
        | "gid"
        | "daemon"
        | "nbproc"
        | "nbthread"
        | "cpu-map"
        | "pidfile"
        | "node"
        | "localpeer"
        | "master-worker"
        | "mworker-max-reloads"
        | "hard-stop-after"
        | "insecure-fork-wanted"
        | "insecure-setuid-wanted"
        | "external-check"
        | "ulimit-n"
        | "set-dumpable"
        | "stats-file"
        | "unix-bind"
        | "lua-load"
        | "strict-limits"
        | "zero-warning"
        | "grace"
        | "set-var"
        | "set-var-fmt"
        | "numa-cpu-mapping"
        | "thread-groups"
        | "thread-group"
        | "tune"
        | "busy-polling"
        | "close-spread-time"
        | "default-path"
        | "expose-fd"
        | "h1-case-adjust"
        | "pp2-never-send-local"
        | "noepoll"
        | "nokqueue"
        | "nopoll"
        | "nosplice"
        | "nogetaddrinfo"
        | "noreuseport"
        | "profiling.tasks"
        | "enabled"
        | "wurfl-data-file"
        | "expose-deprecated-directives"
        | "expose-experimental-directives" => PROCESS,
        _ if keyword.starts_with("tune.") || keyword.starts_with("lua-") || keyword.starts_with("51degrees-") => {
            PROCESS
        }
        _ if keyword.starts_with("ssl-") || keyword.starts_with("issuers-chain") => TLS,
        _ => ("`kplb import` does not know it", "look it up in haproxy's manual"),
    }
}
