"""Which commands there are, where each lives, and the help pages made from that. No command is imported by this."""

from __future__ import annotations

from tare.cli import flags

COMMON = ("run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info")

# path: (module under tare.cli, attribute, one line). The line is repeated from the command, so that listing commands
# imports none of them; a test compares the two.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "attach": ("attach", "ATTACH", "Connect this terminal to a running container"),
    "blame": ("versions", "BLAME", "Show which layer each line of a file comes from"),
    "build": ("build", "BUILD", "Make an image from a Dockerfile"),
    "checkout": ("checkout", "CHECKOUT", "Write the files of an image into a directory"),
    "commit": ("image_make", "COMMIT", "Make an image of what a container has become"),
    "cp": ("copy", "CP", "Copy files between containers and this machine"),
    "create": ("run", "CREATE", "Make a container without starting it"),
    "diff": ("container_read", "DIFF", "Show what a container changed, or what is different between two file systems"),
    "edit": ("edit", "EDIT", "Change an existing container, which keeps its file system"),
    "events": ("events", "EVENTS", "Follow what happens in the engine"),
    "exec": ("execute", "EXEC", "Run a further command in a running container"),
    "export": ("container_read", "EXPORT", "Write a container's file system as a tar archive"),
    "history": ("image_list", "HISTORY", "Show the steps an image was made by"),
    "images": ("image_list", "IMAGES", "List images"),
    "import": ("image_make", "IMPORT", "Make an image from the tar archive of a file system"),
    "info": ("system", "INFO", "Describe the engine and the machine it runs on"),
    "inspect": ("inspect", "INSPECT", "Show everything known about containers, images, networks or volumes"),
    "kill": ("lifecycle", "KILL", "Send a signal to running containers"),
    "load": ("image_move", "LOAD", "Read images from a tar archive"),
    "log": ("versions", "LOG", "Show which layers changed a path"),
    "login": ("login", "LOGIN", "Store credentials for a registry"),
    "logout": ("login", "LOGOUT", "Forget the credentials for a registry"),
    "logs": ("logs", "LOGS", "Print what a container has written"),
    "pack": ("moving", "PACK", "Write a container with everything it is to a file"),
    "pause": ("lifecycle", "PAUSE", "Freeze all processes of containers"),
    "port add": ("ports", "ADD", "Publish ports of an existing container, at once"),
    "port rm": ("ports", "RM", "Take published ports of a container back, at once"),
    "port": ("container_read", "PORT", "List the published ports of a container"),
    "ps": ("ps", "PS", "List containers"),
    "pull": ("image_move", "PULL", "Fetch an image from a registry"),
    "push": ("image_move", "PUSH", "Send an image to a registry"),
    "rename": ("lifecycle", "RENAME", "Give a container another name"),
    "restart": ("lifecycle", "RESTART", "Stop containers and start them again"),
    "rm": ("lifecycle", "RM", "Remove containers"),
    "rmi": ("image_make", "RMI", "Remove images"),
    "run": ("run", "RUN", "Make a container from an image and start it"),
    "save": ("image_move", "SAVE", "Write images to a tar archive"),
    "search": ("image_move", "SEARCH", "Search a registry for images"),
    "send": ("moving", "SEND", "Move or copy a container to another engine"),
    "start": ("lifecycle", "START", "Start stopped containers"),
    "stats": ("stats", "STATS", "Show the processor, memory and traffic of containers"),
    "stop": ("lifecycle", "STOP", "Stop running containers"),
    "tag": ("image_make", "TAG", "Give an image a further name"),
    "top": ("container_read", "TOP", "List the processes of a container"),
    "unpack": ("moving", "UNPACK", "Make the container that was packed"),
    "unpause": ("lifecycle", "UNPAUSE", "Let frozen containers go on"),
    "update": ("update", "UPDATE", "Change the limits of containers"),
    "version": ("system", "VERSION", "Show the versions of this program and of the engine"),
    "wait": ("lifecycle", "WAIT", "Wait until containers stop and print their exit codes"),
    "autobuild add": ("autobuild", "ADD", "Let the engine build from a git repository by itself"),
    "autobuild history": ("autobuild", "HISTORY", "List the runs of an automated build"),
    "autobuild inspect": ("inspect", "AUTOBUILD_INSPECT", "Show everything known about autobuilds"),
    "autobuild logs": ("autobuild", "LOGS", "Print what a run of an automated build said"),
    "autobuild ls": ("autobuild", "LS", "List automated builds"),
    "autobuild pause": ("autobuild", "PAUSE", "Let schedules and hooks of automated builds rest"),
    "autobuild resume": ("autobuild", "RESUME", "Let paused automated builds go on"),
    "autobuild rm": ("autobuild", "RM", "Remove automated builds with their history"),
    "autobuild run": ("autobuild", "RUN", "Run an automated build now and follow it"),
    "autobuild stop": ("autobuild", "STOP", "End the runs of automated builds that go on"),
    "builder prune": ("prune", "BUILDER_PRUNE", "Remove the build cache"),
    "container inspect": ("inspect", "CONTAINER_INSPECT", "Show everything known about containers"),
    "container prune": ("prune", "CONTAINER_PRUNE", "Remove all stopped containers"),
    "image artifacts": ("artifacts", "ARTIFACTS", "List what was pulled or loaded and is no image"),
    "image clean": ("clean", "CLEAN", "Remove images by age, number and size"),
    "image inspect": ("inspect", "IMAGE_INSPECT", "Show everything known about images"),
    "image mount": ("image_mount", "MOUNT", "Mount an image on this machine, to look into it"),
    "image prune": ("prune", "IMAGE_PRUNE", "Remove images that nothing uses"),
    "image tags": ("image_move", "TAGS", "List the tags a repository has at its registry"),
    "image unmount": ("image_mount", "UNMOUNT", "Unmount images"),
    "network connect": ("network", "CONNECT", "Plug a container into a network"),
    "network create": ("network", "CREATE", "Make a network"),
    "network disconnect": ("network", "DISCONNECT", "Unplug a container from a network"),
    "network inspect": ("inspect", "NETWORK_INSPECT", "Show everything known about networks"),
    "network ls": ("network", "LS", "List networks"),
    "network prune": ("prune", "NETWORK_PRUNE", "Remove networks that no container uses"),
    "network rm": ("network", "RM", "Remove networks"),
    "system check": ("check", "CHECK", "Find what is damaged, missing or left over in the engine's store"),
    "system df": ("disk", "DF", "Show what takes up the disk"),
    "system dial-stdio": ("system", "DIAL_STDIO", "Pass standard input and output on to the engine's socket"),
    "system prune": ("prune", "SYSTEM_PRUNE", "Remove everything that is not in use"),
    "volume create": ("volume", "CREATE", "Make a volume"),
    "volume inspect": ("inspect", "VOLUME_INSPECT", "Show everything known about volumes"),
    "volume ls": ("volume", "LS", "List volumes"),
    "volume prune": ("prune", "VOLUME_PRUNE", "Remove volumes that no container uses"),
    "volume rm": ("volume", "RM", "Remove volumes"),
}

GROUPS: dict[str, str] = {
    "autobuild": "Let the engine build from repositories by itself",
    "builder": "Manage builds",
    "container": "Manage containers",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Look after the engine",
    "volume": "Manage volumes",
}

_IN_CONTAINER = (
    "attach", "commit", "cp", "create", "diff", "edit", "exec", "export", "kill", "logs", "pack", "pause", "port", "rename", "restart",
    "rm", "run", "send", "start", "stats", "stop", "top", "unpack", "unpause", "update", "wait",
)  # fmt: skip
_IN_IMAGE = ("build", "history", "import", "load", "pull", "push", "save", "tag")
_HIDDEN = frozenset({"system dial-stdio"})

# Second names: spelling -> the path under which the command is known.
ALIASES: dict[str, str] = {f"container {name}": name for name in _IN_CONTAINER}
ALIASES.update({f"image {name}": name for name in _IN_IMAGE})
ALIASES.update({f"container {name}": "ps" for name in ("ls", "list", "ps")})
ALIASES["image umount"] = "image unmount"
ALIASES.update({f"image {name}": "images" for name in ("ls", "list")})
ALIASES.update({f"image {name}": "rmi" for name in ("rm", "remove", "rmi")})
ALIASES.update({"container remove": "rm", "builder build": "build", "system events": "events", "system info": "info"})
ALIASES.update({f"{group} list": f"{group} ls" for group in ("autobuild", "network", "volume")})
ALIASES.update({f"{group} remove": f"{group} rm" for group in ("autobuild", "network", "volume")})


def load(path: str) -> flags.Command:
    """Import and return one command of `COMMANDS`."""
    module, attribute, _ = COMMANDS[path]
    command = getattr(__import__(f"tare.cli.{module}", fromlist=[attribute]), attribute)
    assert isinstance(command, flags.Command)
    return command


def find(words: list[str]) -> tuple[str, flags.Command, list[str]] | None:
    """The command at the start of `words`: the path as written, the command, the remaining words. None: unknown."""
    if " ".join(words[:2]) in COMMANDS and len(words) > 2:
        path = " ".join(words[:2])
        return path, load(path), words[2:]
    if words[0] in COMMANDS:
        return words[0], load(words[0]), words[1:]
    path = " ".join(words[:2])
    known = ALIASES.get(path, path)
    if len(words) > 1 and known in COMMANDS:
        return path, load(known), words[2:]
    return None


def spellings(path: str) -> list[str]:
    """All paths of the command, longest first as Docker lists them."""
    known = ALIASES.get(path, path)
    others = [alias for alias, target in ALIASES.items() if target == known]
    return [*others, known] if others else []


def command_help(path: str, command: flags.Command, width: int) -> str:
    """The page of one command."""
    parts = [command.usage(f"tare {path}"), command.summary]
    if command.about:
        parts.append("\n".join(flags.wrap(command.about, width)))
    if others := spellings(path):
        parts.append(f"Aliases:\n  {', '.join(f'tare {other}' for other in others)}")
    if command.flags:
        parts.append(flags.flag_help(command.flags, width))
    return "\n\n".join(parts)


def _table(rows: list[tuple[str, str]]) -> str:
    column = max(max(len(name) for name, _ in rows) + 1, 10)
    return "\n".join(f"  {name:<{column}}{text}" for name, text in rows)


def group_help(group: str) -> str:
    """The page of a management group."""
    paths = {path: COMMANDS[path][2] for path in COMMANDS if path.startswith(f"{group} ") and path not in _HIDDEN} | {
        path: COMMANDS[target][2]
        for path, target in ALIASES.items()
        if path.startswith(f"{group} ") and not path.endswith((" list", " remove", " ps", " rmi"))
    }
    rows = [(path.partition(" ")[2], paths[path]) for path in sorted(paths)]
    more = f"Run 'tare {group} COMMAND --help' for more information on a command."
    return f"Usage:  tare {group} COMMAND\n\n{GROUPS[group]}\n\nCommands:\n{_table(rows)}\n\n{more}"


def root_help(options: tuple[flags.Flag, ...], width: int) -> str:
    """The page of the program."""
    single = [path for path in sorted(COMMANDS) if " " not in path]
    blocks = [
        "Usage:  tare [OPTIONS] COMMAND",
        "Run containers. tare speaks the Docker Engine API; commands, flags and output are Docker's own.",
        "Common Commands:\n" + _table([(name, COMMANDS[name][2]) for name in COMMON]),
        "Management Commands:\n" + _table([*GROUPS.items(), ("daemon", "Start the engine itself")]),
        "Commands:\n" + _table([(name, COMMANDS[name][2]) for name in single if name not in COMMON]),
        flags.flag_help(options, width).replace("Options:", "Global Options:", 1),
        "Environment:\n"
        + _table(
            [
                ("TARE_HOST, DOCKER_HOST", "address of the engine when -H is not given"),
                ("DOCKER_CONFIG", "directory of settings and credentials, ~/.docker by default"),
                ("DOCKER_API_VERSION", "speak this version of the API instead of negotiating one"),
            ]
        ),
        "Run 'tare COMMAND --help' for more information on a command.",
    ]
    return "\n\n".join(blocks)
