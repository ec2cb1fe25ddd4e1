//! Which request goes where.

use http::Method;

/// A method at a path, and what it does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) verb: Verb,
    /// `{name}` stands for one segment that is not empty.
    pub(super) path: &'static str,
    pub(super) does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Its fields are the query's parameters. HEAD is the same without the content.
    Get,
    /// Its fields are a JSON object's members.
    Post,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// Says what this is.
    Welcome,
    /// The ancestor's calls.
    Register,
    Send,
    Read,
    /// Calls the RPC of this name.
    Call(&'static str),
    /// Follows the mailbox.
    Events,
    /// Describes this table.
    OpenApi,
    /// Explains a reason.
    Explain,
}

use Does::{Call, Events, Explain, OpenApi, Read, Register, Send, Welcome};
use Verb::{Get, Post};

pub(super) const ROUTES: [Route; 17] = [
    Route { verb: Get, path: "/", does: Welcome },
    Route { verb: Post, path: "/register", does: Register },
    Route { verb: Post, path: "/send_message", does: Send },
    Route { verb: Get, path: "/get_messages", does: Read },
    Route { verb: Post, path: "/v1/users", does: Call("Register") },
    Route { verb: Get, path: "/v1/users", does: Call("ListUsers") },
    Route { verb: Get, path: "/v1/users/{username}", does: Call("GetUser") },
    Route { verb: Post, path: "/v1/messages", does: Call("SendMessage") },
    Route { verb: Get, path: "/v1/messages", does: Call("GetMessages") },
    Route { verb: Post, path: "/v1/messages:acknowledge", does: Call("Acknowledge") },
    Route { verb: Post, path: "/v1/users:delete", does: Call("DeleteUser") },
    Route { verb: Post, path: "/v1/tokens", does: Call("CreateToken") },
    Route { verb: Get, path: "/v1/tokens", does: Call("ListTokens") },
    Route { verb: Post, path: "/v1/tokens:revoke", does: Call("RevokeToken") },
    Route { verb: Get, path: "/v1/events", does: Events },
    Route { verb: Get, path: "/v1/openapi.json", does: OpenApi },
    Route { verb: Get, path: "/v1/problems/{reason}", does: Explain },
];

/// Why a request goes nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    NoSuchPath,
    /// The path takes these methods.
    WrongMethod(String),
}

impl Route {
    /// The name and the value, as it stands there, of what is variable in the path.
    pub(super) fn variable<'a>(&self, path: &'a str) -> Option<(&'static str, &'a str)> {
        let (before, rest) = self.path.split_once('{')?;
        let (name, after) = rest.split_once('}')?;
        Some((name, path.strip_prefix(before)?.strip_suffix(after)?))
    }

    fn is_at(&self, path: &str) -> bool {
        match self.variable(path) {
            Some((_, value)) => !value.is_empty() && !value.contains('/'),
            None => self.path == path,
        }
    }

    fn takes(&self, method: &Method) -> bool {
        match self.verb {
            Get => method == Method::GET || method == Method::HEAD,
            Post => method == Method::POST,
        }
    }
}

/// The route of a request.
pub(super) fn find(method: &Method, path: &str) -> Result<Route, Lost> {
    let here = || ROUTES.iter().filter(|route| route.is_at(path));
    if let Some(route) = here().find(|route| route.takes(method)) {
        return Ok(*route);
    }
    let allowed = here().map(|route| match route.verb {
        Get => "GET, HEAD",
        Post => "POST",
    });
    match allowed.collect::<Vec<_>>() {
        allowed if allowed.is_empty() => Err(Lost::NoSuchPath),
        allowed => Err(Lost::WrongMethod(allowed.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_route_or_says_what_there_is() {
        let does = |method, path| find(&method, path).map(|route| route.does);
        assert_eq!(does(Method::GET, "/v1/users"), Ok(Call("ListUsers")));
        assert_eq!(does(Method::HEAD, "/v1/users/alice"), Ok(Call("GetUser")));
        assert_eq!(does(Method::POST, "/v1/messages:acknowledge"), Ok(Call("Acknowledge")));
        let allowed = |methods: &str| Err(Lost::WrongMethod(methods.to_owned()));
        assert_eq!(does(Method::DELETE, "/v1/users"), allowed("POST, GET, HEAD"));
        assert_eq!(does(Method::GET, "/register"), allowed("POST"));
        for nowhere in ["", "*", "/v1", "/v1/", "/v1/users/", "/v1/users/a/b", "//", "/V1/users"] {
            assert_eq!(does(Method::GET, nowhere), Err(Lost::NoSuchPath), "{nowhere}");
        }
    }

    #[test]
    fn takes_the_variable_out_of_the_path() {
        let route = find(&Method::GET, "/v1/users/al%69ce").expect("a route");
        assert_eq!(route.variable("/v1/users/al%69ce"), Some(("username", "al%69ce")));
    }
}
