"""The words of completion.py as scripts for bash, zsh and fish.

All three complete in the same order: a command; the value of an option; options; the value of a key; else the first
argument and keys, whose section comes first (`train.`), so that a Tab does not print them all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from raysoft.terminal.completion import FLAG, FOLDERS, Command, Option, Words

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, found: Words) -> str:
    """The completion script for one of SHELLS."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)


def sections(keys: Iterable[str], end: str = "=") -> list[str]:
    """The beginnings of keys, and keys that stand in no section with `end` behind them.

    >>> sections(["seed", "train.lr", "train.steps"])
    ['seed=', 'train.']
    """
    return list(dict.fromkeys(f"{key.partition('.')[0]}." if "." in key else key + end for key in keys))


def _keys(found: Words, command: Command) -> dict[str, str]:
    if not command.keys:
        return {}
    return {**found.sweep_keys, **found.keys} if command.sweep else dict(found.keys)


# -------------------------------------------------------------------------------------------------------- bash and zsh

# What both have in common: the case of each command, and the values of options and keys. {} of bash stay as they are.
_COMMON = r"""
    case $command in
@COMMANDS@
        *) options=@TOP@ ;;
    esac
"""

_BASH = r"""# Completion of raysoft for bash; to be written again when a plug-in was installed:
#   raysoft completion bash > ~/.local/share/bash-completion/completions/raysoft      (or source it in ~/.bashrc)
_raysoft() {
    local before=${COMP_LINE:0:COMP_POINT} command="" previous="" current="" word="" all="" values="" strip=""
    local options="" valued=" " first="" keys="" sections="" files="" repeated="" bare="" seen="" i=0 position=0
    local -a words
    COMPREPLY=()
    read -ra words <<< "$before"
    [[ $before == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]}-1]}
    while ((i < ${#words[@]} - 1)) && [[ ${words[i]##*/} != raysoft ]]; do ((i++)); done
    for word in "${words[@]:i+1:${#words[@]}-i-2}"; do
        [[ -z $command && $word != -* ]] && command=$word
    done
@COMMON@
    for word in "${words[@]:i+1:${#words[@]}-i-2}"; do
        [[ $word == "$command" && -z $seen ]] && { seen=1; continue; }
        [[ $word != -* && $valued != *" $previous "* ]] && ((position++))
        [[ $word == --explain ]] && bare=1
        previous=$word
    done
    if [[ $valued == *" $previous "* ]]; then
        case "$command $previous" in
@VALUES@
        esac
        all=$values
    elif [[ $current == -* ]]; then
        all=$options files=""
    elif [[ -n $keys && $current == *=* ]]; then
        files=""
        case ${current%%=*} in
@KEYS@
        esac
        for word in $values; do all+=" ${current%%=*}=$word"; done
    else
        if [[ $position == 0 || -n $repeated ]]; then all=$first; else files=""; fi
        if [[ -n $keys && ( $position != 0 || -n $repeated ) ]]; then
            if [[ $current == *.* ]]; then all+=" $keys"; else all+=" $sections"; fi
            [[ -n $bare ]] && all=${all//=/}
        fi
        [[ -z $command ]] && all+=" $options"
    fi
    local IFS=$' \t\n'
    COMPREPLY=($(compgen -W "$all" -- "$current"))
    if [[ $files == folders || $files == yaml ]]; then
        compopt -o filenames 2> /dev/null
        COMPREPLY+=($(compgen -d -- "$current"))
        if [[ $files == yaml ]]; then
            COMPREPLY+=($(compgen -f -X '!*.yaml' -- "$current") $(compgen -f -X '!*.yml' -- "$current"))
        fi
    fi
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace 2> /dev/null
    if [[ $current == *=* && $COMP_WORDBREAKS == *=* ]]; then  # bash has cut the word there
        strip=${current%"${current##*=}"}
        COMPREPLY=("${COMPREPLY[@]#"$strip"}")
    fi
    return 0
}
complete -F _raysoft raysoft
"""

_ZSH = r"""#compdef raysoft
# Completion of raysoft for zsh; to be written again when a plug-in was installed:
#   raysoft completion zsh > ~/.zfunc/_raysoft      (with fpath+=(~/.zfunc) before compinit in ~/.zshrc)
_raysoft() {
    local command= previous= current=$PREFIX word= values= options= valued=' '
    local first= keys= sections= files= repeated= bare=
    local -i i position=0
    local -a described all
    for word in ${words[2,CURRENT-1]}; do
        [[ -z $command && $word != -* ]] && command=$word
    done
@COMMON@
    word=
    for ((i = 2; i < CURRENT; i++)); do
        if [[ $words[i] == $command && -z $word ]]; then word=1; continue; fi
        [[ $words[i] != -* && $valued != *" $previous "* ]] && ((position++))
        [[ $words[i] == --explain ]] && bare=1
        previous=$words[i]
    done
    if [[ $valued == *" $previous "* ]]; then
        case "$command $previous" in
@VALUES@
        esac
        if [[ $files == folders ]]; then _files -/; else compadd -- ${=values}; fi
        return
    fi
    if [[ $current == -* ]]; then
        case $command in
@OPTIONS@
        esac
        _describe -o option described
        return
    fi
    if [[ -n $keys && $current == *=* ]]; then
        case ${current%%=*} in
@KEYS@
        esac
        compset -P '*='
        compadd -- ${=values}
        return
    fi
    if [[ -z $command ]]; then
        described=(@DESCRIBED@)
        _describe command described
        return
    fi
    if [[ $position == 0 || -n $repeated ]]; then
        [[ -n $first ]] && compadd -- ${=first}
        [[ $files == yaml ]] && _files -g '*.(yaml|yml)'
        [[ $files == folders ]] && _files -/
    fi
    if [[ -n $keys && ( $position != 0 || -n $repeated ) ]]; then
        if [[ $current == *.* ]]; then all=(${=keys}); else all=(${=sections}); fi
        [[ -n $bare ]] && all=(${all%=})
        compadd -S '' -- $all
    fi
}
if [[ $funcstack[1] == _raysoft ]]; then _raysoft "$@"; else compdef _raysoft raysoft; fi
"""


def _bash(found: Words) -> str:
    return _filled(_BASH, found)


def _zsh(found: Words) -> str:
    options = [f"            {one.name}) described=({_described(one.options)}) ;;" for one in found.commands]
    options.append(f"            *) described=({_described(found.options)}) ;;")
    text = _ZSH.replace("@OPTIONS@", "\n".join(options))
    return _filled(text.replace("@DESCRIBED@", _described(found.commands)), found)


def _filled(template: str, found: Words) -> str:
    top = " ".join((*(one.name for one in found.commands), *(one.name for one in found.options)))
    commands = "\n".join(_case(found, one) for one in found.commands)
    values = [line for one in found.commands for line in _values(one)]
    keys = [f"            {key}) values={shlex.quote(' '.join(listed))} ;;" for key, listed in found.values.items()]
    common = _COMMON.replace("@COMMANDS@", commands).replace("@TOP@", shlex.quote(top)).strip("\n")
    text = template.replace("@COMMON@", common).replace("@VALUES@", "\n".join(values))
    return text.replace("@KEYS@", "\n".join(keys))


def _case(found: Words, command: Command) -> str:
    """What is completed behind a command, as assignments."""
    keys = _keys(found, command)
    given = {
        "options": " ".join(one.name for one in command.options),
        "valued": "".join(f" {one.name}" for one in command.options if one.takes != FLAG) + " ",
        "first": " ".join(command.first),
        "keys": " ".join(f"{key}=" for key in keys),
        "sections": " ".join(sections(keys)),
        "files": FOLDERS if command.folders else "yaml" if command.yaml else "",
        "repeated": "1" if command.repeated else "",
    }
    lines = [f"            {name}={shlex.quote(text)}" for name, text in given.items() if text.strip()]
    return "\n".join([f"        {command.name})", *lines, "            ;;"])


def _values(command: Command) -> list[str]:
    """What may stand behind the options of a command."""
    lines = []
    for one in command.options:
        does = f"values={shlex.quote(' '.join(one.takes))}" if isinstance(one.takes, tuple) else "files="
        if one.takes != FLAG:
            does = "files=folders" if one.takes == FOLDERS else does
            lines.append(f"            '{command.name} {one.name}') {does} ;;")
    return lines


def _described(named: Iterable[Command | Option]) -> str:
    """Names with what they mean, as zsh's _describe has them."""
    return " ".join(shlex.quote(f"{one.name}:{one.help}") for one in named)


# ---------------------------------------------------------------------------------------------------------------- fish

_FISH = r"""# Completion of raysoft for fish; to be written again when a plug-in was installed:
#   raysoft completion fish > ~/.config/fish/completions/raysoft.fish
function __raysoft_position --description 'Arguments behind the command so far, without options and their values'
    set -l count 0
    set -l command
    set -l previous
    for word in (commandline -opc)[2..-1]
        if string match -q -- '-*' $word
        else if test -z "$command"
            set command $word
        else if not contains -- "$command $previous" @VALUED@
            set count (math $count + 1)
        end
        set previous $word
    end
    echo $count
end
function __raysoft_first
    __fish_seen_subcommand_from $argv[1]; and test (__raysoft_position) = 0
end
function __raysoft_later
    __fish_seen_subcommand_from $argv[1]; and test (__raysoft_position) != 0
end
function __raysoft_files --description 'YAML files and folders'
    set -l start (commandline -ct)
    set -l found $start*.yaml $start*.yml $start*/
    printf '%s\n' $found
end
function __raysoft_settings --description 'Sections, keys of one, values of a key'
    set -l current (commandline -ct)
    if string match -q -- '*=*' $current
        set -l key (string split -m 1 = -- $current)[1]
        switch $key
@KEYS@
        end
        return
    end
    set -l found
    if string match -q -- '*.*' $current
        set found @MEANINGS@
    else
        set found @SECTIONS@
    end
    if contains -- --explain (commandline -opc)
        set found (string replace = '' -- $found)
    end
    printf '%s\n' $found
end
function __raysoft_sweep_settings
    string match -q -- '*[.=]*' (commandline -ct); or printf '%s\n' @SWEEP@
    __raysoft_settings
end
complete -c raysoft -f
"""


def _fish(found: Words) -> str:
    valued = [f"{one.name} {option.name}" for one in found.commands for option in one.options if option.takes != FLAG]
    keys = []
    for key, listed in found.values.items():
        pairs = _listed(f"{key}={word}" for word in listed)
        keys += [f"            case {key}", f"                printf '%s\\n' {pairs}"]
    text = _FISH.replace("@VALUED@", _listed(valued)).replace("@KEYS@", "\n".join(keys))
    text = text.replace("@MEANINGS@", _listed(_meant(found.keys))).replace("@SECTIONS@", _listed(sections(found.keys)))
    lines = [text.replace("@SWEEP@", _listed(_meant(found.sweep_keys))).rstrip("\n")]
    for option in found.options:
        lines.append(_fish_option("__fish_use_subcommand", option))
    for command in found.commands:
        lines += _fish_command(command)
    return "\n".join(lines) + "\n"


def _fish_command(command: Command) -> list[str]:
    seen = f"__fish_seen_subcommand_from {command.name}"
    start = f"complete -c raysoft -n __fish_use_subcommand -a {command.name} -d {_quoted(command.help)}"
    lines = [start, *(_fish_option(seen, option) for option in command.options)]
    first = f"complete -c raysoft -n '{seen if command.repeated else f'__raysoft_first {command.name}'}'"
    if command.first:
        lines.append(f"{first} -a {_quoted(' '.join(command.first))}")
    if command.yaml:
        lines.append(f"{first} -a '(__raysoft_files)'")
    if command.folders:
        lines.append(f"{first} -a '(__fish_complete_directories)'")
    if command.keys:
        later = seen if command.repeated else f"__raysoft_later {command.name}"
        settings = "__raysoft_sweep_settings" if command.sweep else "__raysoft_settings"
        lines.append(f"complete -c raysoft -n '{later}' -a '({settings})'")
    return lines


def _fish_option(condition: str, option: Option) -> str:
    """A long option; -x: with a value."""
    text = f"complete -c raysoft -n '{condition}' -l {option.name.lstrip('-')} -d {_quoted(option.help)}"
    if option.takes == FLAG:
        return text
    if option.takes == FOLDERS:
        return f"{text} -x -a '(__fish_complete_directories)'"
    return f"{text} -x -a {_quoted(' '.join(option.takes))}" if isinstance(option.takes, tuple) else f"{text} -x"


def _meant(keys: Mapping[str, str]) -> list[str]:
    return [f"{key}=\t{meaning}" for key, meaning in keys.items()]


def _listed(texts: Iterable[str]) -> str:
    return " ".join(map(_quoted, texts))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
