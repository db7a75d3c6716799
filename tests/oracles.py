"""Slow and obvious computations that the fast ones are held against. Nothing here is shared with the package."""

import math

import torch
import torch.nn.functional as F


def sdt(logits, labels):
    """CE of the mean logits, one example at a time."""
    T, N, _ = logits.shape
    total = 0.0
    for n in range(N):
        mean = sum(logits[t, n] for t in range(T)) / T
        total = total - torch.log_softmax(mean, 0)[labels[n]]
    return total / N


def tet(logits, labels, lam, phi):
    """As printed in arXiv 2202.11946: the mean over time of CE, and of MSE to a constant."""
    T = len(logits)
    loss = 0.0
    for t in range(T):
        ce = F.cross_entropy(logits[t], labels)
        mse = F.mse_loss(logits[t], torch.full_like(logits[t], phi))
        loss = loss + (1 - lam) * ce + lam * mse
    return loss / T


def trt_penalty(weights, T, lam, delta, eps):
    """As printed in arXiv 2506.19256, with t from 1 and e^{delta (t-1)}."""
    total = 0.0
    for t in range(1, T + 1):
        for w in weights:
            total = total + (lam * w**2 / (1 + (math.exp(delta * (t - 1)) - 1) * (w.abs() + eps))).sum()
    return total / T


def trt(logits, labels, weights, lam, delta, eps, eta):
    T = len(logits)
    loss = 0.0
    for t in range(T):
        onehot = torch.zeros_like(logits[t])
        for n, y in enumerate(labels):
            onehot[n, y] = 1.0
        loss = loss + (1 - eta) * F.cross_entropy(logits[t], labels) + eta * ((logits[t] - onehot) ** 2).mean()
    return loss / T + trt_penalty(weights, T, lam, delta, eps)


def fisher_traces(model, inputs, labels, *, group_size=1, readout="prefix"):
    """{(module, t): list over groups of squared norms}: a full forward and backward per group and t."""
    model.eval()
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    params = [dict(model.named_parameters())[n] for n in names]
    found = {}
    for start in range(0, len(inputs) - group_size + 1, group_size):
        x, y = inputs[start : start + group_size], labels[start : start + group_size]
        T = len(model(x))
        for t in range(1, T + 1):
            logits = model(x)
            read = logits[:t].mean(0) if readout == "prefix" else logits[t - 1]
            loss = F.cross_entropy(read, y)
            grads = torch.autograd.grad(loss, params, allow_unused=True)
            for name, g in zip(names, grads, strict=True):
                key = (name.rpartition(".")[0], t)
                found.setdefault(key, {}).setdefault(start, 0.0)
                found[key][start] += 0.0 if g is None else float((g.double() ** 2).sum())
    return {key: list(values.values()) for key, values in found.items()}


def dense_hessian(model, batches, objective):
    """d^2 L / d theta^2 entry by entry: the gradient of each component of the gradient. (P, P), P by the model's order."""
    leaves = [p for p in model.parameters() if p.requires_grad]
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    count = sum(len(y) for _, y in batches)
    total = 0.0
    for x, y in batches:
        loss = objective(model(x), y, params)
        gradient = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        flat = torch.cat(
            [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(gradient, leaves, strict=True)]
        )
        rows = []
        for component in flat:
            row = torch.autograd.grad(component, leaves, retain_graph=True, allow_unused=True)
            rows.append(
                torch.cat(
                    [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(row, leaves, strict=True)]
                )
            )
        total = total + torch.stack(rows) * (len(y) / count)
    return total


def dense_gauss_newton(model, batches, objective):
    """J^T (d^2 L / dz^2) J with both factors written out."""
    leaves = [p for p in model.parameters() if p.requires_grad]
    count = sum(len(y) for _, y in batches)
    total = 0.0
    for x, y in batches:
        logits = model(x)
        rows = [torch.autograd.grad(v, leaves, retain_graph=True, allow_unused=True) for v in logits.reshape(-1)]
        jacobian = torch.stack(
            [
                torch.cat(
                    [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(r, leaves, strict=True)]
                )
                for r in rows
            ]
        )
        inner = torch.autograd.functional.hessian(lambda z, y=y: objective(z, y, None), logits.detach())
        inner = inner.reshape(logits.numel(), logits.numel())
        total = total + jacobian.T @ inner @ jacobian * (len(y) / count)
    return total
