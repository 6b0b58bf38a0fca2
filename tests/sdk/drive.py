"""Drives the published `stacyvm` client library, unmodified, against a running server.

Usage: drive.py sync|async URL API_KEY

One script of steps for both clients: the asynchronous one is driven a step at a time. Every public
method has to be called, or to stand in NOT_SERVED with the answer it gets instead.
"""

import asyncio
import faulthandler
import inspect
import sys

import stacyvm
from stacyvm import async_client, async_sandbox, client, exceptions, providers, sandbox, templates

# Methods whose routes the server does not have yet. This list only shrinks.
NOT_SERVED = {
    "Client.spawn_template",
    "Client.quota_summary",
    "TemplateManager.list",
    "TemplateManager.get",
    "TemplateManager.save",
    "TemplateManager.delete",
}

CLASSES = {
    "sync": {
        "Client": client.Client,
        "Sandbox": sandbox.Sandbox,
        "TemplateManager": templates.TemplateManager,
        "ProviderManager": providers.ProviderManager,
    },
    # The asynchronous client has no managers.
    "async": {"Client": async_client.AsyncClient, "Sandbox": async_sandbox.AsyncSandbox},
}


class Driver:
    """Stands before an object of the library: notes what is called, and waits for what is async."""

    loop = None
    called = set()

    def __init__(self, name, inner):
        self._name, self._inner = name, inner

    def __getattr__(self, attribute):
        value = getattr(self._inner, attribute)
        if not callable(value):
            self.called.add(f"{self._name}.{attribute}")
            return wrap(value)

        def call(*args, **kwargs):
            self.called.add(f"{self._name}.{attribute}")
            return wrap(wait(value(*args, **kwargs)))

        return call

    def __enter__(self):
        enter = self._inner.__enter__ if Driver.loop is None else self._inner.__aenter__
        wait(enter())
        return self

    def __exit__(self, *args):
        leave = self._inner.__exit__ if Driver.loop is None else self._inner.__aexit__
        wait(leave(*args))


def wait(value):
    async def finish():
        return await value

    return Driver.loop.run_until_complete(finish()) if inspect.isawaitable(value) else value


def wrap(value):
    if isinstance(value, (sandbox.Sandbox, async_sandbox.AsyncSandbox)):
        return Driver("Sandbox", value)
    if isinstance(value, templates.TemplateManager):
        return Driver("TemplateManager", value)
    if inspect.isasyncgen(value):
        return one_by_one(value)
    return value


def one_by_one(chunks):
    while True:
        try:
            yield wait(chunks.__anext__())
        except StopAsyncIteration:
            return


def raises(kind, call, code=None):
    try:
        call()
    except kind as error:
        if code is not None:
            assert error.code == code, f"code {error.code}, not {code}: {error}"
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def equal(got, wanted):
    assert got == wanted, f"{got!r}, not {wanted!r}"


def connect(mode, url, **keys):
    return Driver("Client", CLASSES[mode]["Client"](url, **keys))


def the_server(c):
    equal(c.health()["status"], "ok")
    equal([p["name"] for p in c.providers() if p["default"]], ["native"])
    assert all(p["healthy"] for p in c.providers())
    equal(c.pool_status(), {"enabled": False})
    raises(exceptions.SandboxNotFound, c.quota_summary)
    raises(exceptions.SandboxNotFound, lambda: c.spawn_template("none"))


def template_manager(c):
    manager = c.templates
    raises(exceptions.SandboxNotFound, manager.list)
    raises(exceptions.SandboxNotFound, lambda: manager.get("none"))
    raises(exceptions.SandboxNotFound, lambda: manager.delete("none"))
    template = stacyvm.Template(name="none", image="alpine:latest")
    raises(exceptions.SandboxNotFound, lambda: manager.save(template))


def provider_manager(c):
    manager = Driver("ProviderManager", providers.ProviderManager(c._inner._http))
    equal([p["name"] for p in manager.list()], [p["name"] for p in c.providers()])
    equal(manager.test()["native"], True)


def spawning(c):
    before = c.admission(image="alpine:latest", memory_mb=64, ttl="5m", owner_id="somebody")
    assert before.allowed and not before.queueable, before
    equal(before.active_owner_sandboxes, 0)
    too_long = c.admission(ttl="1000h")
    assert not too_long.allowed and too_long.reason == "max_ttl", too_long

    sb = c.spawn(memory_mb=64, vcpus=1, ttl="5m", owner_id="somebody", metadata={"job": "42"})
    equal((sb.state, sb.provider, sb.image), ("running", "native", "alpine:latest"))
    assert sb.id.startswith("sb-"), sb.id
    equal(sb.get_preview_url(3000), f"http://3000-{sb.id}.localhost")
    after = c.admission(owner_id="somebody")
    equal(after.active_owner_sandboxes, before.active_owner_sandboxes + 1)
    equal(after.active_sandboxes, before.active_sandboxes + 1)

    listed = [s for s in c.list() if s.id == sb.id]
    equal(len(listed), 1)
    equal((listed[0].memory_mb, listed[0].vcpus), (64, 1))
    equal(listed[0].metadata, {"job": "42"})
    equal(c.get(sb.id).id, sb.id)

    raises(exceptions.StacyVMError, lambda: c.spawn(image="no/such:image"), "IMAGE_NOT_FOUND")
    raises(exceptions.SandboxNotFound, lambda: c.spawn(provider="none"))
    raises(exceptions.StacyVMError, lambda: c.spawn(ttl="soon"), "BAD_REQUEST")
    raises(exceptions.StacyVMError, lambda: c.spawn(ttl="1000h"), "RESOURCE_LIMIT")
    raises(exceptions.StacyVMError, lambda: c.spawn(template="none"), "BAD_REQUEST")
    raises(exceptions.SandboxNotFound, lambda: c.get("sb-never"))
    return sb


def commands(sb):
    done = sb.exec("echo out; echo err >&2; exit 3")
    equal((done.exit_code, done.stdout, done.stderr), (3, "out\n", "err\n"))
    assert done.duration, "a duration is told"
    equal(sb.exec("echo", args=["$HOME", "it's"]).stdout, "$HOME it's\n")
    equal(sb.exec("printf", args=["%s|", "a b", "$HOME"], mode="argv").stdout, "a b|$HOME|")
    equal(sb.exec("echo $GREETING", env={"GREETING": "hé 🦀"}).stdout, "hé 🦀\n")
    equal(sb.exec("pwd").stdout, "/workspace\n")
    equal(sb.exec("pwd", workdir="/tmp").stdout, "/tmp\n")
    equal(sb.exec("no-such-program", mode="argv").exit_code, 127)
    equal(sb.exec("kill -9 $$").exit_code, 137)
    raises(exceptions.StacyVMError, lambda: sb.exec("sleep 60", timeout="100ms"), "TIMEOUT")
    raises(exceptions.StacyVMError, lambda: sb.exec("true", workdir="/none"), "FILE_NOT_FOUND")


def joined(chunks):
    text = {}
    for chunk in chunks:
        text[chunk.stream] = text.get(chunk.stream, "") + chunk.data
    return text


def streams(sb):
    text = joined(sb.exec_stream("echo out; echo err >&2"))
    equal(text, {"stdout": "out\n", "stderr": "err\n", "exit": ""})
    text = joined(sb.exec_stream("printf", args=["%s", "a b"], mode="argv"))
    equal(text["stdout"], "a b")
    text = joined(sb.exec_stream("echo $A; pwd", env={"A": "b"}, workdir="/tmp"))
    equal(text["stdout"], "b\n/tmp\n")
    # Characters that other line readers stumble over, and enough of it for many chunks.
    odd = "\u2028\u0085é🦀"
    text = joined(sb.exec_stream("i=0; while [ $i -lt 3000 ]; do echo $ODD; i=$((i+1)); done",
                                 env={"ODD": odd}))
    equal(text["stdout"], (odd + "\n") * 3000)
    # What is written arrives while the command runs: it ends only once we have seen that.
    chunks = sb.exec_stream("echo first; while [ ! -e go ]; do sleep 0.02; done; echo second")
    first = next(chunks)
    equal((first.stream, first.data), ("stdout", "first\n"))
    sb.write_file("/workspace/go", "")
    equal(joined(chunks), {"stdout": "second\n", "exit": ""})
    sb.delete_file("/workspace/go")


def files(sb):
    content = "line\n\ttab é 🦀 \u2028\n"
    sb.write_file("/workspace/deep/er/file.txt", content, mode="0640")
    equal(sb.read_file("/workspace/deep/er/file.txt"), content)
    equal(sb.exec("cat deep/er/file.txt").stdout, content)
    info = sb.stat_file("/workspace/deep/er/file.txt")
    equal((info["path"], info["mode"]), ("/workspace/deep/er/file.txt", "0640"))
    equal((info["size"], info["is_dir"]), (len(content.encode()), False))
    assert info["mod_time"].endswith("Z"), info
    sb.chmod_file("/workspace/deep/er/file.txt", "0755")
    equal(sb.stat_file("/workspace/deep/er/file.txt")["mode"], "0755")
    sb.move_file("/workspace/deep/er/file.txt", "/workspace/moved/file.txt")
    equal([f["path"] for f in sb.list_files("/workspace/moved")], ["/workspace/moved/file.txt"])
    assert "/bin" in [f["path"] for f in sb.list_files()]
    equal(sb.glob_files("/workspace/**/*.txt"), ["/workspace/moved/file.txt"])
    equal(sb.glob_files("/workspace/*.none"), [])
    large = "0123456789abcdef" * (1 << 16)
    sb.write_file("/workspace/large", large)
    assert sb.read_file("/workspace/large") == large, "a file of 1 MiB comes back as it was"
    raises(exceptions.StacyVMError, lambda: sb.delete_file("/workspace/moved"), "CONFLICT")
    sb.delete_file("/workspace/moved", recursive=True)
    for gone in (sb.read_file, sb.stat_file, sb.list_files, sb.delete_file):
        raises(exceptions.StacyVMError, lambda: gone("/workspace/moved/file.txt"),
               "FILE_NOT_FOUND")
    raises(exceptions.StacyVMError, lambda: sb.chmod_file("/workspace/large", "rwx"),
           "BAD_REQUEST")


def the_end(c, sb):
    before = sb._inner._info["expires_at"]
    sb.extend_ttl("10m")
    sb.refresh()
    assert sb._inner._info["expires_at"] > before, "extended"
    sb.extend_ttl()
    equal(sb.state, "running")
    equal(c.prune(), 0)
    sb.destroy()
    sb.destroy()
    error = raises(exceptions.SandboxNotFound, lambda: sb.exec("true"))
    assert "was destroyed" in str(error), error
    raises(exceptions.SandboxNotFound, sb.refresh)
    with c.spawn() as other:
        equal(other.exec("echo inside").stdout, "inside\n")
    raises(exceptions.SandboxNotFound, lambda: c.get(other.id))
    assert sb.id not in [s.id for s in c.list()]


def the_door(mode, url, key):
    with connect(mode, url) as nobody:
        equal(nobody.health()["status"], "ok")
        raises(stacyvm.StacyVMError, nobody.list, "UNAUTHORIZED")
    with connect(mode, url, api_key=key, user_id="user@example.com") as user:
        with user.spawn(ttl="1m") as sb:
            equal(sb._inner._info["owner_id"], "user@example.com")
    nowhere = connect(mode, "http://127.0.0.1:1")
    raises(exceptions.ConnectionError, nowhere.spawn)
    nowhere.close()


def untouched(mode):
    """The methods of the library that nobody called."""
    public = set()
    for name, kind in CLASSES[mode].items():
        public |= {f"{name}.{m}" for m in vars(kind) if not m.startswith("_")}
    return public - Driver.called


def main(mode, url, key):
    if mode == "async":
        Driver.loop = asyncio.new_event_loop()
    with connect(mode, url, api_key=key) as c:
        the_server(c)
        if mode == "sync":
            template_manager(c)
            provider_manager(c)
        sb = spawning(c)
        commands(sb)
        streams(sb)
        files(sb)
        the_end(c, sb)
    the_door(mode, url, key)
    equal(untouched(mode), set())
    served = Driver.called - NOT_SERVED
    if Driver.loop is not None:
        Driver.loop.run_until_complete(Driver.loop.shutdown_asyncgens())
        Driver.loop.close()
    print(f"{mode}: {len(served)} methods and attributes driven")


if __name__ == "__main__":
    # A hang is a failure with a stack, not a test that never ends.
    faulthandler.dump_traceback_later(120, exit=True)
    main(*sys.argv[1:])
    faulthandler.cancel_dump_traceback_later()
