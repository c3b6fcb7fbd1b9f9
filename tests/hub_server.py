"""A Hugging Face Hub in memory on a loopback port, for the real clients: users, organisations, repositories, faults.

It answers as huggingface.co does to `huggingface_hub` 1.x and 2.x, `datasets` and `transformers`, with its status codes
and its headers X-Error-Code, X-Repo-Commit, X-Linked-*. Leaves out Xet storage, Spaces, discussions and search.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

LFS = (".safetensors", ".onnx", ".pt", ".pt2", ".npz", ".parquet", ".bin", ".png")
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS).encode()
WHEN = "2026-01-01T00:00:00.000Z"
WRITERS = ("admin", "write", "contributor")
ROUTES = []


@dataclass(frozen=True)
class User:
    name: str
    orgs: dict[str, str] = field(default_factory=dict)
    """organisation -> admin, write, contributor or read"""
    role: str = "write"
    """of the token: write or read"""

    def may_write(self, owner: str) -> bool:
        return self.role == "write" and (owner == self.name or self.orgs.get(owner) in WRITERS)


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The git id of the file, or of the pointer in its place."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        held = pointer.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    def told(self, path: str) -> dict:
        linked = {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}} if self.lfs else {}
        return {"type": "file", "path": path, "size": len(self.content), "oid": self.oid, **linked}


@dataclass(frozen=True)
class Commit:
    title: str
    files: dict[str, File]
    parent: str | None = None

    @property
    def oid(self) -> str:
        told = [self.title, self.parent, sorted((path, file.oid) for path, file in self.files.items())]
        return hashlib.sha1(json.dumps(told).encode()).hexdigest()


class Repo:
    def __init__(self, kind: str, name: str, private: bool):
        self.kind, self.name, self.private, self.gated = kind, name, private, False
        self.owner = name.partition("/")[0]
        self.commits: dict[str, Commit] = {}
        self.tags: dict[str, str] = {}
        self.branches = {"main": self.keep(Commit("initial commit", {".gitattributes": File(ATTRIBUTES, False)}))}

    def keep(self, commit: Commit) -> str:
        self.commits[commit.oid] = commit
        return commit.oid

    def at(self, revision: str) -> str:
        """The commit of a branch, a tag, or a commit's own or shortened id."""
        short = next((oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)), None)
        found = self.branches.get(revision) or self.tags.get(revision) or short
        if found is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {path: file.content for path, file in self.commits[self.at(revision)].files.items()}

    def history(self, revision: str = "main") -> list[str]:
        """Commits of a revision, the newest first."""
        found, oid = [], self.at(revision)
        while oid:
            found.append(oid)
            oid = self.commits[oid].parent
        return found


class Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **headers: str):
        self.response = JSONResponse({"error": message}, status, headers)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message)):
            if value:
                self.response.headers[name] = value


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match: a status, or a connection cut after some bytes."""

    pattern: str
    status: int = 0
    cut_after: int = 0
    times: int = 1
    after: bool = False
    """cut once the request is done, so that only its answer is lost"""


def route(method: str, path: str):
    pattern = re.compile(path.replace("REPO", "([^/]+/[^/]+)").replace("KIND", "(models|datasets)"))

    def keep(call):
        ROUTES.append((method, pattern, call))
        return call

    return keep


class Hub:
    """`with Hub({"hf_token": User("ada")}) as hub: HfApi(endpoint=hub.url)`."""

    def __init__(self, users: dict[str, User] | None = None, page: int = 1000):
        self.users, self.page = dict(users or {}), page
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}  # by sha256
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __enter__(self) -> Hub:
        config = uvicorn.Config(
            self.app, interface="asgi3", lifespan="off", log_level="critical", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self.repos[f"{kind}s", name]

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", private: bool = False) -> Repo:
        """A repository that is there already, with these files on main."""
        repo = self.repos[f"{kind}s", name] = Repo(f"{kind}s", name, private)
        kept = {path: File(content, path.endswith(LFS)) for path, content in files.items()}
        repo.branches["main"] = repo.keep(Commit("files", kept, repo.branches["main"]))
        return repo

    async def app(self, scope, receive, send) -> None:
        request, path = Request(scope, receive), scope["raw_path"].decode().partition("?")[0]
        self.requests.append((request.method, path))
        told = f"{request.method} {path}"
        fault = next((one for one in self.faults if one.times and re.search(one.pattern, told)), None)
        if fault is not None:
            fault.times -= 1
        if fault is None or fault.after:
            try:
                response = await self.answer(request, path)
            except Refusal as refusal:
                response = refusal.response
        elif fault.status:
            response = JSONResponse({"error": "on purpose"}, fault.status)
        else:
            got = 0
            async for chunk in request.stream():
                got += len(chunk)
                if got >= fault.cut_after:
                    break
        if fault and not fault.status:
            receive.__self__.transport.abort()  # uvicorn's own: no answer, and no end of the connection in due form
        else:
            await response(scope, receive, send)

    async def answer(self, request: Request, path: str) -> Response:
        user = self.user(request)
        for method, pattern, call in ROUTES:
            found = pattern.fullmatch(path)
            if found and (request.method == method or (request.method, method) == ("HEAD", "GET")):
                body = await request.body()
                groups = [unquote(one) if one else one for one in found.groups()]
                return await asyncio.to_thread(call, self, Asked(request, user, body), *groups)
        raise Refusal(404, "", f"No such page: {request.method} {path}")

    def user(self, request: Request) -> User | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.users:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return self.users.get(token)

    def seen(self, asked: Asked, kind: str, name: str, *, write: bool = False) -> Repo:
        """The repository, for who may see it, or write to it."""
        repo, user = self.repos.get((kind, name)), asked.user
        own = user is not None and repo is not None and (repo.owner == user.name or repo.owner in user.orgs)
        if repo is None or (repo.private and not own):
            raise Refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user is None:
            raise Refusal(401, "", "Unauthorized")
        if write and not user.may_write(repo.owner):
            raise Refusal(403, "", f"You don't have the rights to write to {name}")
        return repo


@dataclass(frozen=True)
class Asked:
    request: Request
    user: User | None
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body or b"{}")


@route("GET", "/api/whoami-v2")
def whoami(hub: Hub, asked: Asked) -> Response:
    if asked.user is None:
        raise Refusal(401, "", "Invalid username or password.")
    orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in asked.user.orgs.items()]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": asked.user.role}}
    return JSONResponse({"type": "user", "id": "1", "name": asked.user.name, "orgs": orgs, "auth": token})


@route("POST", "/api/repos/create")
def create(hub: Hub, asked: Asked) -> Response:
    given = asked.json
    if asked.user is None:
        raise Refusal(401, "", "Unauthorized")
    owner = given.get("organization") or asked.user.name
    kind, name = f"{given.get('type') or 'model'}s", f"{owner}/{given['name']}"
    url = f"{hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
    if not asked.user.may_write(owner):
        raise Refusal(403, "", f"You don't have the rights to create a {kind[:-1]} under the namespace {owner!r}")
    if (kind, name) in hub.repos:
        return JSONResponse({"error": "You already created this repo", "url": url}, 409)
    private = given.get("private") or given.get("visibility") == "private"
    hub.repos[kind, name] = Repo(kind, name, bool(private))
    return JSONResponse({"url": url, "name": name, "id": "1"})


@route("DELETE", "/api/repos/delete")
def delete(hub: Hub, asked: Asked) -> Response:
    given = asked.json
    kind = f"{given.get('type') or 'model'}s"
    repo = hub.seen(asked, kind, f"{given.get('organization') or asked.user.name}/{given['name']}", write=True)
    del hub.repos[kind, repo.name]
    return JSONResponse({})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: Hub, asked: Asked) -> Response:
    found = re.match(r"---\s*\n(.*?)\n---", asked.json["content"], re.DOTALL)
    try:
        card = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


@route("GET", "/api/KIND/REPO(?:/revision/([^/]+))?")
def info(hub: Hub, asked: Asked, kind: str, name: str, revision: str | None) -> Response:
    repo = hub.seen(asked, kind, name)
    oid = repo.at(revision or "main")
    files = repo.commits[oid].files
    blobs = asked.request.query_params.get("blobs")
    siblings = [{"rfilename": path} | (_blob(file) if blobs else {}) for path, file in files.items()]
    facts = {
        "_id": "1", "id": name, "author": repo.owner, "sha": oid, "lastModified": WHEN, "createdAt": WHEN,
        "private": repo.private, "gated": repo.gated, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
        "siblings": siblings, "usedStorage": sum(len(file.content) for file in files.values()),
    }  # fmt: skip
    wanted = asked.request.query_params.getlist("expand") + asked.request.query_params.getlist("expand[]")
    return JSONResponse({key: value for key, value in facts.items() if not wanted or key in ("_id", "id", *wanted)})


def _blob(file: File) -> dict:
    linked = {"lfs": {"sha256": file.sha256, "size": len(file.content), "pointerSize": 134}} if file.lfs else {}
    return {"size": len(file.content), "blobId": file.oid, **linked}


def _entries(files: dict[str, File], under: str, recursive: bool) -> list[dict]:
    prefix = f"{under}/" if under else ""
    inside = {path: file for path, file in files.items() if path.startswith(prefix)}
    folders = {path[: at.start()] for path in inside for at in re.finditer("/", path) if at.start() >= len(prefix)}
    entries = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
    entries += [file.told(path) for path, file in inside.items()]
    return [one for one in entries if recursive or "/" not in one["path"][len(prefix) :]]


@route("GET", "/api/KIND/REPO/tree/([^/]+)(?:/(.+))?")
def tree(hub: Hub, asked: Asked, kind: str, name: str, revision: str, under: str | None) -> Response:
    repo, query = hub.seen(asked, kind, name), asked.request.query_params
    oid = repo.at(revision)
    entries = _entries(repo.commits[oid].files, (under or "").strip("/"), query.get("recursive", "").lower() == "true")
    if not entries and under:
        raise Refusal(404, "EntryNotFound", f"{under} does not exist on {revision!r}")
    if query.get("expand", "").lower() == "true":
        entries = [
            {**one, "lastCommit": {"id": oid, "title": repo.commits[oid].title, "date": WHEN}} for one in entries
        ]
    return _paged(hub, asked, entries)


def _paged(hub: Hub, asked: Asked, entries: list) -> Response:
    start = int(asked.request.query_params.get("cursor", 0))
    more = asked.request.url.include_query_params(cursor=start + hub.page)
    links = {"Link": f'<{more}>; rel="next"'} if start + hub.page < len(entries) else {}
    return JSONResponse(entries[start : start + hub.page], headers=links)


@route("GET", "/api/KIND/REPO/refs")
def refs(hub: Hub, asked: Asked, kind: str, name: str) -> Response:
    repo = hub.seen(asked, kind, name)

    def told(found: dict[str, str], where: str) -> list[dict]:
        return [{"name": one, "ref": f"refs/{where}/{one}", "targetCommit": oid} for one, oid in found.items()]

    answer = {"branches": told(repo.branches, "heads"), "tags": told(repo.tags, "tags"), "converts": []}
    return JSONResponse({**answer, "pullRequests": []})


@route("GET", "/api/KIND/REPO/commits/([^/]+)")
def commits(hub: Hub, asked: Asked, kind: str, name: str, revision: str) -> Response:
    repo = hub.seen(asked, kind, name)
    head = {"message": "", "authors": [{"user": repo.owner}], "date": WHEN}
    return _paged(hub, asked, [{"id": oid, "title": repo.commits[oid].title, **head} for oid in repo.history(revision)])


@route("POST", "/api/KIND/REPO/paths-info/([^/]+)")
def paths_info(hub: Hub, asked: Asked, kind: str, name: str, revision: str) -> Response:
    repo = hub.seen(asked, kind, name)
    files = repo.commits[repo.at(revision)].files
    is_json = "json" in asked.request.headers.get("content-type", "")
    paths = asked.json["paths"] if is_json else parse_qs(asked.body.decode()).get("paths", [])
    every = _entries(files, "", recursive=True)
    return JSONResponse([one for one in every if one["path"] in [path.strip("/") for path in paths]])


@route("POST", "/api/KIND/REPO/preupload/([^/]+)")
def preupload(hub: Hub, asked: Asked, kind: str, name: str, revision: str) -> Response:
    repo = hub.seen(asked, kind, name, write=True)
    there = repo.commits[repo.at(revision)].files
    found = []
    for file in asked.json["files"]:
        old = there.get(file["path"])
        oid = None if old is None else old.sha256 if old.lfs else old.oid
        mode = "lfs" if file["path"].endswith(LFS) or file["size"] > 10_000_000 else "regular"
        found.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": found, "commitOid": repo.at(revision)})


@route("POST", "/api/KIND/REPO/commit/([^/]+)")
def commit(hub: Hub, asked: Asked, kind: str, name: str, revision: str) -> Response:
    repo = hub.seen(asked, kind, name, write=True)
    if revision not in repo.branches:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    parent, title = repo.branches[revision], ""
    files = dict(repo.commits[parent].files)
    for line in asked.body.splitlines():
        key, value = (json.loads(line)[part] for part in ("key", "value"))
        path = value.get("path", "")
        if key == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, parent):
                raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            files[path] = File(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in hub.objects:
                raise Refusal(400, "", f"LFS pointer of {path} points to a file that does not exist")
            files[path] = File(hub.objects[value["oid"]], lfs=True)
        else:
            gone = [one for one in files if one == path or one.startswith(f"{path.rstrip('/')}/")]
            if not gone:
                raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
            for one in gone:
                del files[one]
    oid = repo.branches[revision] = repo.keep(Commit(title, files, parent))
    prefix = "datasets/" if kind == "datasets" else ""
    return JSONResponse({"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{prefix}{name}/commit/{oid}"})


@route("POST", "/api/KIND/REPO/(branch|tag)/([^/]+)")
def add_ref(hub: Hub, asked: Asked, kind: str, name: str, what: str, at: str) -> Response:
    repo, given = hub.seen(asked, kind, name, write=True), asked.json
    found, new = (repo.branches, at) if what == "branch" else (repo.tags, given.get("tag"))
    if new in found:
        raise Refusal(409, "", f"Reference already exists: {new}")
    found[new] = repo.at(given.get("startingPoint") or "main" if what == "branch" else at)
    return JSONResponse({})


@route("DELETE", "/api/KIND/REPO/(branch|tag)/([^/]+)")
def remove_ref(hub: Hub, asked: Asked, kind: str, name: str, what: str, old: str) -> Response:
    repo = hub.seen(asked, kind, name, write=True)
    found = repo.branches if what == "branch" else repo.tags
    if found.pop(old, None) is None:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {old}")
    return JSONResponse({})


@route("PUT", "/api/KIND/REPO/settings")
def settings(hub: Hub, asked: Asked, kind: str, name: str) -> Response:
    repo, given = hub.seen(asked, kind, name, write=True), asked.json
    if "private" in given or "visibility" in given:
        repo.private = bool(given.get("private")) or given.get("visibility") == "private"
    repo.gated = given.get("gated", repo.gated)
    return JSONResponse({"private": repo.private})


@route("POST", r"/(datasets/)?REPO\.git/info/lfs/objects/batch")
def batch(hub: Hub, asked: Asked, prefix: str | None, name: str) -> Response:
    hub.seen(asked, "datasets" if prefix else "models", name, write=True)
    found = []
    for one in asked.json["objects"]:
        actions = {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}, "verify": {"href": f"{hub.url}/lfs/verify"}}
        found.append({**one, "authenticated": True} | ({} if one["oid"] in hub.objects else {"actions": actions}))
    return JSONResponse({"transfer": "basic", "objects": found})


@route("PUT", "/lfs/([0-9a-f]{64})")
def upload(hub: Hub, asked: Asked, oid: str) -> Response:
    if hashlib.sha256(asked.body).hexdigest() != oid:
        raise Refusal(400, "", "The sha256 of what came is another")
    hub.objects[oid] = asked.body
    return Response()


@route("POST", "/lfs/verify")
def verify(hub: Hub, asked: Asked) -> Response:
    if len(hub.objects.get(asked.json["oid"], b"")) != asked.json["size"]:
        raise Refusal(404, "", "No such object")
    return JSONResponse({})


@route("GET", "/(datasets/)?REPO/resolve/([^/]+)/(.+)")
def resolve(hub: Hub, asked: Asked, prefix: str | None, name: str, revision: str, path: str) -> Response:
    repo = hub.seen(asked, "datasets" if prefix else "models", name)
    if repo.gated and (asked.user is None or not asked.user.may_write(repo.owner)):
        raise Refusal(403 if asked.user else 401, "GatedRepo", "Access to this repo is restricted")
    oid = repo.at(revision)
    file = repo.commits[oid].files.get(path)
    if file is None:
        raise Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": oid})
    headers = {"X-Repo-Commit": oid, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
    content, status = file.content, 200
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.request.headers.get("range", ""))
    if found:
        start, stop = int(found[1]), min(int(found[2] or len(content) - 1) + 1, len(content))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        content, status = content[start:stop], 206
    if asked.request.method == "HEAD":
        return Response(status_code=status, headers={**headers, "Content-Length": str(len(content))})
    return Response(content, status, headers)
