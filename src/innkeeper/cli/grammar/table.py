"""Every command there is: its words, what it does, where it lives. Commands are loaded by name when they are called.

The one place where commands are described: help, completion and the reference are made from it, and from the parameters
that each command declares.
"""

from __future__ import annotations

from dataclasses import dataclass

_HERE = "innkeeper.cli.commands."
_NARROW = "\n\nA terminal shows the columns that fit; a pipe, and -f, all of them."


@dataclass(frozen=True, slots=True)
class Command:
    """`words` may say more after an empty line. `name` has two words where it is part of a family."""

    name: str
    where: str
    usage: str
    words: str
    examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


_INSTANCES = (
    Command(
        "launch",
        f"{_HERE}launch:launch",
        "[OPTIONS] TEMPLATE [NAME]",
        "Make an instance from a template and start it.\n\nReturns once it runs; the guest may still be booting. Of a "
        "snapshot, INSTANCE/SNAPSHOT, it begins with the disks as they were then, with a name, an address and keys of "
        "its own.",
        (
            "inn launch debian-12 web --cpus 2 --memory 1GiB --disk 10GiB",
            "inn launch debian-12 web --ssh-key ~/.ssh/id_ed25519.pub",
            "inn launch debian-12 web --user-data cloud.yaml --wait",
            "inn launch tiny --count 5 --ephemeral --ttl 1h",
            "inn launch tiny 'node{n}' --count 3 --all-or-none",
            "inn launch web/before web-then",
            "inn launch tiny web --dry-run",
        ),
    ),
    Command(
        "list",
        f"{_HERE}instances:list_",
        "[OPTIONS]",
        f"List instances.{_NARROW}",
        ("inn list --status running --label team=blue", "inn list -f json"),
        ("ls",),
    ),
    Command("show", f"{_HERE}instances:show", "[OPTIONS] INSTANCE", "Show one instance.", ("inn show web --metrics",)),
    Command(
        "start",
        f"{_HERE}power:start",
        "[OPTIONS] INSTANCE...",
        "Start stopped instances.\n\nReturns once they run; with --wait, once their guests answer.",
        ("inn start web --wait",),
    ),
    Command(
        "stop",
        f"{_HERE}power:stop",
        "[OPTIONS] INSTANCE...",
        "Shut instances down.\n\nThe guest is asked, and forced when its time is up.",
        ("inn stop web db", "inn stop web --grace 10s", "inn stop web --force"),
    ),
    Command("restart", f"{_HERE}power:restart", "[OPTIONS] INSTANCE...", "Shut instances down and start them again."),
    Command("pause", f"{_HERE}power:pause", "[OPTIONS] INSTANCE...", "Stop the virtual CPUs; memory stays."),
    Command(
        "resume",
        f"{_HERE}power:resume",
        "[OPTIONS] INSTANCE...",
        "Let paused instances go on.\n\nAlso those that were paused because the disk was full, once there is room.",
    ),
    Command(
        "rename",
        f"{_HERE}power:rename",
        "[OPTIONS] INSTANCE NEW-NAME",
        "Give an instance another name.",
        ("inn rename web www",),
    ),
    Command(
        "delete",
        f"{_HERE}power:delete",
        "[OPTIONS] INSTANCE...",
        "Delete instances with their disks and snapshots.",
        ("inn delete web", "inn delete web db --force"),
        ("rm",),
    ),
    Command(
        "wait",
        f"{_HERE}instances:wait",
        "[OPTIONS] INSTANCE...",
        "Wait until an instance is so far.",
        ("inn wait web", "inn wait web --for cloud-init", "inn wait web --for stopped --timeout 90s"),
    ),
)
_INSIDE = (
    Command(
        "exec",
        f"{_HERE}streams:exec_",
        "[OPTIONS] INSTANCE -- COMMAND...",
        "Run a command in an instance.\n\nIts input, output and exit code are passed on; 255 says that the command did "
        "not run or its line broke.",
        ("inn exec web -- uname -a", "inn exec web --user www -- ls -l", "echo hello | inn exec web -- cat"),
    ),
    Command("shell", f"{_HERE}streams:shell", "[OPTIONS] INSTANCE", "Open a shell in an instance."),
    Command(
        "console",
        f"{_HERE}streams:console",
        "[OPTIONS] INSTANCE",
        "Look at an instance's serial console, and type on it.\n\nWhat was said lately, then live. Ctrl-] ends it.",
    ),
    Command(
        "push",
        f"{_HERE}files:push",
        "[OPTIONS] FILE INSTANCE:PATH",
        "Copy a file into an instance.\n\nA path that is a folder takes the file under its own name. The file's mode "
        "goes with it. Links are followed; a device or a pipe is written into.",
        ("inn push site.conf web:/etc/nginx/conf.d/", "date | inn push - web:/etc/stamp"),
    ),
    Command(
        "pull",
        f"{_HERE}files:pull",
        "[OPTIONS] INSTANCE:PATH [FILE]",
        "Copy a file out of an instance.\n\nWithout a place here it comes into this folder, under its own name. A file "
        "that is replaced keeps its mode; a new one has that of the file there. Links are followed; a device or a pipe "
        "is written into.",
        (
            "inn pull web:/var/log/syslog",
            "inn pull web:/etc/hosts /tmp/web-hosts",
            "inn pull web:/var/log/syslog - | grep error",
        ),
    ),
    Command(
        "logs",
        f"{_HERE}streams:logs",
        "[OPTIONS] INSTANCE",
        "Print what an instance said on its console, and QEMU.\n\nAlso of one that is down. With --follow the console "
        "alone, and live.",
        ("inn logs web", "inn logs web --follow"),
    ),
    Command(
        "top",
        f"{_HERE}top:top",
        "[OPTIONS]",
        "Show what running instances use.\n\nBusiest first, anew every five seconds; Ctrl-C ends it. Where nobody "
        "watches, it prints once.",
    ),
)
_SNAPSHOTS = (
    Command(
        "snapshot create",
        f"{_HERE}snapshots:create",
        "[OPTIONS] INSTANCE [NAME]",
        "Keep an instance's disks as they are now.\n\nThe disks alone; what is in memory is not part of it yet. A "
        "running instance runs on. Its snapshot is consistent when its guest agent froze the file systems for that "
        "moment, as is that of one that was shut down; otherwise the disks are as after a loss of power.\n\n"
        "Snapshots lie beside the disks and go with their instance: they are no backup.",
        ("inn snapshot create web", "inn snapshot create web before-upgrade"),
    ),
    Command(
        "snapshot list",
        f"{_HERE}snapshots:list_",
        "[OPTIONS] INSTANCE",
        "List an instance's snapshots, oldest first.\n\nPARENT is the one below, CURRENT the one that the instance "
        f"stands on. STORED is what was written since the snapshot before it.{_NARROW}",
        ("inn snapshot list web",),
    ),
    Command("snapshot show", f"{_HERE}snapshots:show", "[OPTIONS] INSTANCE SNAPSHOT", "Show one snapshot."),
    Command(
        "snapshot restore",
        f"{_HERE}snapshots:restore",
        "[OPTIONS] INSTANCE SNAPSHOT",
        "Take an instance back to a snapshot.\n\nWhat is on its disks is dropped where no snapshot has kept it; all "
        "snapshots stay. The instance must be stopped, or --restart given: then it is ended at once and started "
        "anew.\n\nWith --as nothing is dropped: another instance is made, as inn launch INSTANCE/SNAPSHOT does. "
        "--restart and --as exclude each other.",
        (
            "inn stop web; inn snapshot restore web before-upgrade",
            "inn snapshot restore web before-upgrade --restart",
            "inn snapshot restore web before-upgrade --as web-then",
        ),
    ),
    Command(
        "snapshot delete",
        f"{_HERE}snapshots:delete",
        "[OPTIONS] INSTANCE SNAPSHOT...",
        "Delete snapshots.\n\nInstances that were made from one, and snapshots taken over it, stay whole: what they "
        "need of it is kept until they go.",
        ("inn snapshot delete web before-upgrade",),
        ("rm",),
    ),
    Command(
        "rewind",
        f"{_HERE}snapshots:rewind",
        "[OPTIONS] INSTANCE SNAPSHOT",
        "Take an instance back to a snapshot as it runs.\n\nThe same as inn snapshot restore --restart: it is ended at "
        "once and started anew, and what is on its disks is dropped where no snapshot has kept it. One that is stopped "
        "stays stopped.",
        ("inn rewind web before-upgrade",),
    ),
)
_TEMPLATES = (
    Command("template list", f"{_HERE}templates:list_", "[OPTIONS]", f"List templates.{_NARROW}"),
    Command("template show", f"{_HERE}templates:show", "[OPTIONS] TEMPLATE", "Show one template."),
    Command(
        "template build",
        f"{_HERE}templates:build",
        "[OPTIONS] RECIPE",
        "Build the next version of a catalogue entry: debian-12 or tiny.\n\nCtrl-C cancels, and nothing remains.",
        ("inn template build debian-12",),
    ),
    Command(
        "template import",
        f"{_HERE}templates:import_",
        "[OPTIONS] FILE --name NAME --image-format FORMAT",
        "Make a template from a disk image on the daemon's machine.",
        ("inn template import sid.img --name sid --image-format qcow2 --firmware uefi",),
    ),
    Command(
        "template publish",
        f"{_HERE}templates:publish",
        "[OPTIONS] INSTANCE --name NAME",
        "Make a template from a stopped instance.",
        ("inn stop web; inn template publish web --name golden",),
    ),
    Command(
        "template warm",
        f"{_HERE}templates:warm",
        "[OPTIONS] TEMPLATE",
        "Boot a template once and keep its memory: launches then go on from it instead of booting.\n\nThat happens by "
        "itself, too, after a template's first launch. Instances of another size boot, and so does one with --cold; "
        "`inn show` says how each was started, and why.",
        ("inn template warm debian-12", "inn template warm debian-12 --drop"),
    ),
    Command(
        "template delete",
        f"{_HERE}templates:delete",
        "[OPTIONS] TEMPLATE...",
        "Delete versions of templates.",
        (),
        ("rm",),
    ),
)
_SITE = (
    Command("network list", f"{_HERE}site:list_networks", "[OPTIONS]", f"List networks.{_NARROW}"),
    Command("network show", f"{_HERE}site:show_network", "[OPTIONS] NETWORK", "Show one network."),
    Command("host list", f"{_HERE}site:list_hosts", "[OPTIONS]", f"List hosts, and what they have promised.{_NARROW}"),
    Command("host show", f"{_HERE}site:show_host", "[OPTIONS] [HOST]", "Show one host."),
    Command("operation list", f"{_HERE}operations:list_", "[OPTIONS]", f"List operations, newest first.{_NARROW}"),
    Command("operation show", f"{_HERE}operations:show", "[OPTIONS] OPERATION", "Show an operation with its steps."),
    Command(
        "operation cancel",
        f"{_HERE}operations:cancel",
        "[OPTIONS] OPERATION",
        "Stop an operation at its next step and undo what it did.\n\nReturns at once.",
    ),
    Command("operation wait", f"{_HERE}operations:wait", "[OPTIONS] OPERATION", "Wait until an operation has ended."),
)
_DAEMON = (
    # The daemon is composed in main, above the command line, so these are named and not imported.
    Command(
        "serve", "innkeeper.main.serve:serve", "[OPTIONS]", "Run the daemon of this machine. Instances outlive it."
    ),
    Command("demo", "innkeeper.main.demo:demo", "[OPTIONS]", "Run a daemon over a simulated host, for trying it out."),
    Command(
        "completion",
        f"{_HERE}completion:completion",
        "SHELL",
        "Print what completes commands and names in bash, zsh or fish.",
        (
            "source <(inn completion bash)",
            "inn completion bash > /etc/bash_completion.d/inn",
            "inn completion zsh > /usr/local/share/zsh/site-functions/_inn",
        ),
    ),
    Command("help", f"{_HERE}completion:help_", "[COMMAND]", "Explain a command."),
)
FAMILIES = {
    "snapshot": "Disks of instances at one moment: create, list, show, restore, delete.",
    "template": "Blueprints of instances: list, show, build, import, publish, warm, delete.",
    "network": "Networks of instances: list, show.",
    "host": "Machines that run instances: list, show.",
    "operation": "Work under way and done: list, show, cancel, wait.",
}
GROUPS = (
    ("Instances", _INSTANCES),
    ("In an instance", _INSIDE),
    ("Snapshots", _SNAPSHOTS),
    ("Templates", _TEMPLATES),
    ("Everything else", _SITE),
    ("Daemon", _DAEMON),
)
COMMANDS = tuple(command for _, commands in GROUPS for command in commands)
