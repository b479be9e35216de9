//! Why directives of keepalived have no equivalent, and what to do about it.

use crate::import::finding::NOTHING_TO_DO;

/// Why, and what to do.
pub(super) type Reason = (&'static str, &'static str);

const LABEL: Reason = ("it is a name for keepalived's mails and logs", NOTHING_TO_DO);
const MAIL: Reason = ("kplb sends no mail", "watch its log, or have `notify` run a command that sends one");
const MONITORING: Reason = ("kplb speaks neither SNMP nor D-Bus", "use `kplb status --json`");
const PROCESS: Reason = (
    "it is about keepalived's own processes",
    "nothing to do, kplb's election has a thread with real-time priority anyway",
);
const SCRIPTS: Reason =
    ("it is about scripts that keepalived runs", "nothing to do, unless `notify` is used: see `notify_user`");
const FILES: Reason = ("it is about how keepalived reads its configuration", NOTHING_TO_DO);
const FIREWALL: Reason = ("kplb sets no rules of a firewall and needs none", NOTHING_TO_DO);
const IPVS: Reason = ("kplb does not use IPVS", NOTHING_TO_DO);
const NETWORK: Reason =
    ("kplb adds no address but the VIPs, no routes and no rules", "leave them to the node's network configuration");
const TRACKING: Reason = (
    "the VIPs depend on this node's link, address, data path and agent alone",
    "nothing to do, unless it was about something that clients need on this very node",
);
const LINK: Reason = ("kplb watches the link of its interface by itself", NOTHING_TO_DO);
const FIFO: Reason = ("kplb tells of its roles by the command `notify` only", "use `notify`");
const VMAC: Reason = (
    "kplb answers with the interface's own MAC address, and announces it when the VIPs move",
    "let switches and clients accept gratuitous ARP",
);
const COMPLIANCE: Reason = ("kplb does it as the RFC says, and cannot do otherwise", NOTHING_TO_DO);

/// Why this directive has no equivalent; none if nobody knows it.
pub(super) fn reason(keyword: &str) -> Option<Reason> {
    let reason = match keyword {
        "router_id" | "snmp_name" => LABEL,
        "notification_email"
        | "notification_email_from"
        | "smtp_server"
        | "smtp_helo_name"
        | "smtp_connect_timeout"
        | "smtp_alert"
        | "smtp_alert_vrrp"
        | "smtp_alert_checker"
        | "no_email_faults"
        | "no_checker_emails"
        | "checker_log_all_failures"
        | "log_all_failures"
        | "log_unknown_vrids"
        | "debug" => MAIL,
        "snmp_socket"
        | "enable_snmp_keepalived"
        | "enable_snmp_vrrp"
        | "enable_snmp_checker"
        | "enable_snmp_rfc"
        | "enable_snmp_rfcv2"
        | "enable_snmp_rfcv3"
        | "enable_traps"
        | "enable_dbus"
        | "dbus_service_name"
        | "dbus_no_interface_name" => MONITORING,
        "vrrp_priority"
        | "checker_priority"
        | "bfd_priority"
        | "vrrp_no_swap"
        | "checker_no_swap"
        | "bfd_no_swap"
        | "vrrp_rt_priority"
        | "checker_rt_priority"
        | "bfd_rt_priority"
        | "vrrp_rlimit_rttime"
        | "vrrp_rlimit_rtime"
        | "checker_rlimit_rttime"
        | "bfd_rlimit_rttime"
        | "vrrp_cpu_affinity"
        | "checker_cpu_affinity"
        | "bfd_cpu_affinity"
        | "max_auto_priority"
        | "min_auto_priority_delay"
        | "process_names"
        | "process_name"
        | "vrrp_process_name"
        | "checker_process_name"
        | "bfd_process_name"
        | "child_wait_time"
        | "use_pid_dir"
        | "instance"
        | "umask"
        | "shutdown_script_timeout"
        | "startup_script_timeout"
        | "vrrp_netlink_cmd_rcv_bufs"
        | "vrrp_netlink_cmd_rcv_bufs_force"
        | "vrrp_netlink_monitor_rcv_bufs"
        | "vrrp_netlink_monitor_rcv_bufs_force"
        | "lvs_netlink_cmd_rcv_bufs"
        | "lvs_netlink_cmd_rcv_bufs_force"
        | "lvs_netlink_monitor_rcv_bufs"
        | "lvs_netlink_monitor_rcv_bufs_force"
        | "process_monitor_rcv_bufs"
        | "process_monitor_rcv_bufs_force"
        | "vrrp_rx_bufs_policy"
        | "vrrp_rx_bufs_multiplier"
        | "kernel_rx_buf_size"
        | "rs_init_notifies"
        | "json_version" => PROCESS,
        "script_user" | "enable_script_security" | "startup_script" | "shutdown_script" => SCRIPTS,
        "include_check"
        | "reload_check_config"
        | "reload_time_file"
        | "reload_repeat"
        | "reload_file"
        | "tmp_config_directory"
        | "config_save_dir"
        | "data_use_instance"
        | "random_seed"
        | "state_dump_file"
        | "stats_dump_file" => FILES,
        "nftables"
        | "nftables_priority"
        | "nftables_counters"
        | "nftables_ifindex"
        | "nftables_ipvs"
        | "nftables_ipvs_priority"
        | "nftables_ipvs_start_fwmark"
        | "vrrp_iptables"
        | "vrrp_ipsets"
        | "disable_local_igmp"
        | "namespace_with_ipsets" => FIREWALL,
        "lvs_sync_daemon"
        | "lvs_sync_daemon_interface"
        | "lvs_timeouts"
        | "lvs_flush"
        | "lvs_flush_on_stop"
        | "lvs_notify_fifo"
        | "lvs_notify_fifo_script"
        | "net_namespace_ipvs" => IPVS,
        "static_ipaddress"
        | "static_routes"
        | "static_rules"
        | "virtual_routes"
        | "virtual_rules"
        | "promote_secondaries"
        | "track_group"
        | "default_interface" => NETWORK,
        "track_file" | "vrrp_track_file" | "vrrp_track_process" | "track_process" | "track_bfd" | "bfd_instance"
        | "vrrp_track_bfd" | "track_src_ip" => TRACKING,
        "linkbeat_use_polling"
        | "linkbeat_interfaces"
        | "interface_up_down_delays"
        | "dont_track_primary"
        | "dynamic_interfaces" => LINK,
        "notify_fifo"
        | "notify_fifo_script"
        | "vrrp_notify_fifo"
        | "vrrp_notify_fifo_script"
        | "vrrp_notify_priority_changes"
        | "notify_priority_changes"
        | "fifo_write_vrrp_states_on_reload"
        | "notify_master_rx_lower_pri"
        | "notify_deleted" => FIFO,
        "use_vmac" | "vmac_xmit_base" | "use_vmac_addr" | "use_ipvlan" | "vmac_prefix" | "vmac_addr_prefix"
        | "garp_extra_if" | "vrrp_garp_extra_if" => VMAC,
        "vrrp_lower_prio_no_advert"
        | "lower_prio_no_advert"
        | "vrrp_higher_prio_send_advert"
        | "higher_prio_send_advert"
        | "vrrp_check_unicast_src"
        | "check_unicast_src"
        | "vrrp_skip_check_adv_addr"
        | "skip_check_adv_addr"
        | "unicast_fault_no_peer"
        | "old_unicast_checksum" => COMPLIANCE,
        "net_namespace" => {
            ("kplb has the network namespace that it is started in", "start it there, as with `ip netns exec`")
        }
        "vrf" => ("kplb serves one interface", "give `kplb attach` the interface that clients come in by"),
        "SSL" => ("a check of kplb has its own files", "set `client_certificate_file` and `client_key_file` by hand"),
        _ => return None,
    };
    Some(reason)
}
