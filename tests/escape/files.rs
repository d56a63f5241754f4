//! Files of the host, of other cells and of other agents.

use crate::attempt::{Attempt, made, said};

pub const ATTEMPTS: &[Attempt] = &[
    said("read a file in a home of the host", "read {host_home}/secret treasure"),
    said("see what lies in the host's /tmp", "list {host_tmp} {mark}"),
    made("make a file in a home of the host", "create {host_home}/made", "{host_home}/made"),
    said("read /etc/shadow", "read /etc/shadow"),
    said("read the daemon's token for the forge", "read {operator}/forge.token"),
    said("read the daemon's configuration", "read {operator}/lazarus.toml"),
    said("read the registry", "read {data}/registry.sqlite"),
    said("write the registry", "write {data}/registry.sqlite"),
    said("read another cell's home", "read {other_cell}/home/sleeper/secret treasure"),
    made("write another cell's home", "create {other_cell}/home/sleeper/made", "{other_cell}/home/sleeper/made"),
    said("read another agent's home", "read {neighbour}/secret treasure"),
    said("see what another agent has in its home", "list {neighbour} secret"),
    made("write another agent's home", "create {neighbour}/made", "{host_neighbour}/made"),
    said("read another agent's home behind the cover", "read {hidden_homes}/bystander/secret treasure"),
    made("write the system: /usr", "create /usr/{mark}", "/usr/{mark}"),
    made("write the system: /etc", "create /etc/{mark}", "/etc/{mark}"),
    made("write a directory that is shown read-only", "create {tools}/{mark}", "{tools}/{mark}"),
    said("open the cell's record for writing", "write {record}/cell.json"),
    made("forge a record of the cell", "create {record}/{mark}", "{host_record}/{mark}"),
    said("move the cell's record away", "rename {record} {record}-away"),
    said("open the prompt of another agent for writing", "write {record}/prompts/{prompt}"),
    said("open a program of the system for writing", "write {system_program}"),
    said("set the mode of a program of the system", "chmod {system_program}"),
    said("open the program of Lazarus for writing", "write {program}"),
    said("set the mode of the program of Lazarus", "chmod {program}"),
    made("write the objects that clones of other cells borrow", "create {objects}/{mark}", "{host_objects}/{mark}"),
    said("open a file by its number on the disk", "handle {home}"),
    said("take another root", "chroot {home}"),
];
