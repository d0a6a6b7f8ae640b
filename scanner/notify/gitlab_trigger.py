"""GitLab trigger: starts a pipeline of a branch.

https://docs.gitlab.com/api/pipeline_triggers/#trigger-a-pipeline-with-a-token
"""

from __future__ import annotations

from urllib.parse import quote

from scanner.model.notification import Message
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target

_LONGEST = 4000


class GitLabTrigger(ChannelFormat):
    """See `ChannelFormat`."""

    id = "gitlab-trigger"
    title = "GitLab trigger"
    purpose = "starts a pipeline, for example a rebuild when a base is newer"
    setup = "GitLab: *Settings > CI/CD > Pipeline trigger tokens* of the project."
    fields = (
        Field("project", "Project path or id", required=True, pattern=r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*"),
        Field("ref", "Branch or tag", required=True, default="main", pattern=r"[A-Za-z0-9_./-]{1,200}"),
        Field("token", "Trigger token", required=True, secret=True),
        Field("url", "Address", pattern=URL, default="https://gitlab.com"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`. The token is sent in the body: addresses are written to logs."""
        if message.resolved:
            return Receipt("200", "nothing to start: it is resolved")
        base = target.value("url", self.fields[3].default).rstrip("/")
        url = f"{base}/api/v4/projects/{quote(target.value('project'), safe='')}/trigger/pipeline"
        body = {
            "token": target.secret("token").reveal(),
            "ref": target.value("ref", "main"),
            "variables": variables_of(message),
        }
        return Receipt(str(target.post(url, body=body).status), "pipeline started")


def variables_of(message: Message) -> dict[str, str]:
    """The variables of the pipeline.

    GitLab expands ``$NAME`` in their values, and an image's name could hold one that is a secret: ``$$`` is a plain
    ``$``.
    """
    subjects = dict.fromkeys(one.event.subject for one in message.occurrences)
    values = {
        "DOCKWARDEN_MESSAGE": message.id,
        "DOCKWARDEN_KIND": message.kind,
        "DOCKWARDEN_SUBJECTS": " ".join(subjects),
        "DOCKWARDEN_TITLE": message.title,
        "DOCKWARDEN_URL": message.url,
    }
    return {name: value[:_LONGEST].replace("$", "$$") for name, value in values.items()}
