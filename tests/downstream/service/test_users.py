"""Users, their roles, and what each endpoint asks for."""

from hashlib import sha256

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from downstream.service.audit.routes import AUDIT
from downstream.service.feedback.routes import FEEDBACK
from downstream.service.routes import API
from downstream.service.routes_images import IMAGES
from downstream.service.routes_learning import LEARNING
from downstream.service.routes_products import PRODUCTS
from downstream.service.routes_results import RESULTS
from downstream.service.routes_roi import ROI
from downstream.service.routes_versions import VERSIONS
from downstream.service.users import RIGHTS, ROLES, User, read_users, refusal, user_of
from downstream.service.watch.routes import WATCH
from pretrain.command import UserError

OPEN = {"/health", "/api/health"}


def digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def test_users_are_read_and_known_by_their_tokens():
    text = f"# who\n\nada engineer {digest('a')}  # the first\nbob.b@x operator {digest('b')}\n"
    ada, bob = users = read_users(text, "users.txt")
    assert ada == User("ada", "engineer", digest("a")) and bob.role == "operator"
    assert user_of("a", users) == ada and user_of("b", users) == bob
    assert user_of("c", users) is user_of("", users) is user_of(digest("a"), users) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "users.txt names no user"),
        ("# only a comment", "names no user"),
        ("ada engineer", "line 1: a user is a line of"),
        ("a/b engineer " + digest("a"), "line 1: a user is a line of"),
        ("\nada enginer " + digest("a"), "line 2: there is no role enginer; did you mean engineer"),
        ("ada engineer " + "token" * 9, "no SHA-256: printf"),
        (f"ada engineer {digest('a')}\nada auditor {digest('b')}", "line 2: the name ada is taken"),
        (f"ada engineer {digest('')}", "line 1: ada's token is empty, or another user's"),
        (f"ada engineer {digest('a')}\nbob auditor {digest('a')}", "line 2: bob's token is empty, or another"),
        ("service auditor " + digest("a"), "the name service is taken"),
    ],
)
def test_what_is_no_user_is_a_mistake(text, words):
    with pytest.raises(UserError, match=words):
        read_users(text, "users.txt")


def test_no_role_has_all_and_each_has_something():
    assert all(set(rights) < set(RIGHTS) for rights in ROLES.values())
    assert {right for rights in ROLES.values() for right in rights} == set(RIGHTS)
    assert User("token").rights == RIGHTS
    assert "engineer" in refusal(User("bob", "operator"), "configure")
    assert all(refusal(User("bob", "operator"), right) for right in RIGHTS)


def test_every_endpoint_asks_for_a_right():
    wanted = {
        (route.path, method): {
            needed.dependency.right
            for needed in [*router.dependencies, *route.dependencies]
            if hasattr(needed.dependency, "right")
        }
        for router in (API, IMAGES, RESULTS, FEEDBACK, AUDIT, WATCH, VERSIONS, LEARNING, PRODUCTS, ROI)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    app = FastAPI()
    app.include_router(API)
    # There is no other router.
    assert len(wanted) > 15 and {*app.openapi()["paths"]} | {"/health"} == {path for path, _ in wanted}
    assert {path for (path, _), rights in wanted.items() if not rights} == OPEN
    assert all(len(rights) == 1 for (path, _), rights in wanted.items() if path not in OPEN)
    # Nothing but reading is open to who may only read.
    reading = {path for (path, method), rights in wanted.items() if rights == {"read"} and method != "GET"}
    assert reading == set()
    assert (
        wanted["/api/threshold", "PUT"]
        == wanted["/api/roi", "PUT"]
        == wanted["/api/load_model", "POST"]
        == wanted["/api/learn", "POST"]
        == {"configure"}
    )
    assert wanted["/api/audit", "GET"] == wanted["/api/audit/export", "GET"] == {"audit"}
